// The CUDA backend's whole model, executed on the host: cuts into passes and batches, the names of
// a trace, what it takes of memory, NaN, and what it says where there is no device.
#include <map>

#include "optimized/backends.hpp"
#include "optimized/cuda/host/cublaslt.hpp"
#include "optimized/cuda/host/global_memory.hpp"
#include "optimized/cuda/model/engine.hpp"
#include "tests/answers.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/skip.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;

namespace {

using test::ask;

constexpr const char* formats[] = {"fp32", "bf16", "fp8"};

EngineOptions options_of(const std::string& format, Index chunk = 64) {
  EngineOptions options;
  options.format = format;
  options.chunk = chunk;
  options.threads = 1;
  return options;
}

Answer ask(const std::string& backend, const Model& model, const std::string& format,
           const Sequence& s, const std::vector<Index>& ends = {}) {
  Evaluator evaluator(backend_named(backend).open(model, options_of(format)));
  return ask(evaluator, s, ends);
}

bool same_row(const Tensor<float, 2>& a, Index i, const Tensor<float, 2>& b, Index j) {
  return std::equal(a.view()[i].begin(), a.view()[i].end(), b.view()[j].begin());
}

bool is_decision(const std::string& name) {
  return name.ends_with("self_attn.indexer") || name.ends_with("mlp.gate.experts");
}

/// One sequence, fed to an engine in pieces.
struct Fed {
  Engine& engine;
  Sequence sequence;
  std::unique_ptr<SequenceCache> cache = engine.new_cache();
  std::vector<std::int32_t> begin = std::vector<std::int32_t>(sequence.tokens.size());

  Feed next(Index n) const {
    const auto at = static_cast<std::size_t>(cache->rows()), size = static_cast<std::size_t>(n);
    return {cache.get(), std::span(sequence.tokens).subspan(at, size),
            std::span(sequence.positions).subspan(at, size), std::span(begin).first(size)};
  }
  /// Logits of the last of the next n tokens.
  Tensor<float, 2> feed(Index n) {
    Tensor<float, 2> logits({1, engine.config().vocab_size});
    const Feed feed = next(n);
    engine.forward({&feed, 1}, LogitsOf::last_of_each_feed, logits);
    return logits;
  }
};

/// V3.2's sample with one parameter multiplied beyond the largest float: products overflow.
Model overflowing(const std::string& name) {
  Model model = sample_model("v32");
  const auto values = std::make_shared<Tensor<double, 1>>();
  for_each_tensor(model.weights, model.config,
                  [&](const std::string& at, Parameter& p, const std::vector<Index>& shape) {
                    if (at != name) return;
                    *values = Tensor<double, 1>({shape[0] * shape[1]});
                    read_rows(p, 0, shape[0], values->data());
                    for (double& x : *values) x = x > 0 ? 3e38 : -3e38;
                    p = parameter(values->data(), shape, name);
                  });
  model.memory = std::make_shared<std::pair<std::shared_ptr<const void>, decltype(values)>>(
      model.memory, values);
  return model;
}

}  // namespace

TEST_CASE("cuda-host: in fp32, chunks and decoding give a prefill's bits", "[cuda-model][slow]") {
  for (const char* family : {"v2", "glm"}) {
    const Model model = sample_model(family);
    const Sequence s = plain_sequence(some_tokens(model, 40));
    Evaluator evaluator(cuda::host::open(model, options_of("fp32")));
    const Answer whole = ask(evaluator, s);
    std::vector<Index> steps;
    for (Index t = 1; t <= s.size(); ++t) steps.push_back(t);
    for (const auto& ends : {std::vector<Index>{7, 14, 21, 28, 35}, steps}) {
      INFO(family << ", " << ends.size() << " passes");
      const Answer cut = ask(evaluator, s, ends);
      for (Index t = 0; t < s.size(); ++t) CHECK(same_row(cut.logits, t, whole.logits, t));
      int decisions = 0;
      for (const Trace::Entry& entry : whole.trace.entries()) {
        if (!is_decision(entry.name)) continue;
        ++decisions;
        CHECK(distance(entry.values(), cut.trace.at(entry.name).values()) == 0);
      }
      CHECK(decisions > 0);
    }
  }
}

TEST_CASE("cuda-host: sequences fed together give what each gives alone", "[cuda-model][slow]") {
  const Model model = sample_model("v32");
  const auto engine = cuda::host::open(model, options_of("fp32"));
  const Index lengths[] = {30, 12, 25}, V = model.config.vocab_size;
  std::vector<Fed> alone, together;
  for (const Index n : lengths)
    for (std::vector<Fed>* all : {&alone, &together})
      all->push_back({*engine, plain_sequence(some_tokens(model, n, std::uint64_t(n)))});
  Tensor<float, 2> logits({3, V});
  const auto check_pass = [&](const std::vector<Index>& sizes) {
    std::vector<Feed> feeds;
    for (std::size_t i = 0; i < 3; ++i) feeds.push_back(together[i].next(sizes[i]));
    engine->forward(feeds, LogitsOf::last_of_each_feed, logits);
    for (std::size_t i = 0; i < 3; ++i)
      CHECK(same_row(logits, Index(i), alone[i].feed(sizes[i]), 0));
  };
  check_pass({28, 10, 23});  // the first and the last see more than top-k keys
  check_pass({1, 1, 1});
  check_pass({1, 1, 1});
}

TEST_CASE("cuda-host: of sequences fed together, the trace tells each one's own keys",
          "[cuda-model][slow]") {
  const Model model = sample_model("v32");
  const auto engine = cuda::host::open(model, options_of("fp32"));
  using Chosen = std::map<std::string, std::vector<std::int32_t>>;
  const auto chosen_of = [&](const std::vector<Feed>& feeds) {
    Chosen chosen;
    Tensor<float, 2> logits({Index(feeds.size()), model.config.vocab_size});
    Tap tap;
    tap.decision = [&](const std::string& name, View<const std::int32_t, 2> keys) {
      if (name.ends_with("self_attn.indexer")) chosen[name].assign(keys.begin(), keys.end());
    };
    engine->forward(feeds, LogitsOf::last_of_each_feed, logits, tap);
    return chosen;
  };
  for (const Index length : {30, 6}) {  // more than top-k keys, and fewer
    std::vector<Fed> alone, together;
    for (std::vector<Fed>* all : {&alone, &together})
      for (const Index n : {Index{9}, length})
        all->push_back({*engine, plain_sequence(some_tokens(model, n, std::uint64_t(n)))});
    Chosen want = chosen_of({alone[0].next(9)});
    for (const auto& [name, keys] : chosen_of({alone[1].next(length)}))
      want[name].insert(want[name].end(), keys.begin(), keys.end());
    CHECK(want.size() == 3);
    CHECK(chosen_of({together[0].next(9), together[1].next(length)}) == want);
  }
}

// Pages have 256 rows.
TEST_CASE("cuda-host: a sequence goes on beyond its page, alone and among others",
          "[cuda-model][slow]") {
  const Model model = sample_model("v32");
  const Sequence s = plain_sequence(some_tokens(model, 259));
  const auto engine = cuda::host::open(model, options_of("fp32", 300));
  Evaluator evaluator(cuda::host::open(model, options_of("fp32", 300)));
  const Answer whole = ask(evaluator, s);
  for (const auto& ends : {std::vector<Index>{256, 257, 258}, {250}, {255, 256}}) {
    INFO("the first pass ends at " << ends[0]);
    const Answer cut = ask(evaluator, s, ends);
    for (Index t = 0; t < s.size(); ++t) CHECK(same_row(cut.logits, t, whole.logits, t));
  }
  Fed at_the_end{*engine, s}, beyond{*engine, s}, before{*engine, s};
  at_the_end.feed(256);
  beyond.feed(258);
  before.feed(254);
  Tensor<float, 2> logits({3, model.config.vocab_size});
  const Feed feeds[] = {at_the_end.next(1), beyond.next(1), before.next(4)};
  engine->forward(feeds, LogitsOf::last_of_each_feed, logits);
  const Index last[] = {256, 258, 257};
  for (Index i = 0; i < 3; ++i) CHECK(same_row(logits, i, whole.logits, last[i]));
}

TEST_CASE("cuda-host: the trace has the CPU's names, shapes and order", "[cuda-model]") {
  for (const char* family : {"v3", "v32", "glm"})
    for (const char* format : formats) {
      const Model model = sample_model(family);
      const Sequence s = plain_sequence(some_tokens(model, 8));  // every query sees every key
      const Trace got = ask("cuda-host", model, format, s).trace;
      const Trace want = ask("cpu", model, format, s).trace;
      INFO(family << " " << format);
      REQUIRE(got.entries().size() == want.entries().size());
      for (std::size_t i = 0; i < want.entries().size(); ++i) {
        CHECK(got.entries()[i].name == want.entries()[i].name);
        CHECK(got.entries()[i].shape == want.entries()[i].shape);
        if (want.entries()[i].name.ends_with("self_attn.indexer"))
          CHECK(distance(got.entries()[i].values(), want.entries()[i].values()) == 0);
      }
    }
}

TEST_CASE("cuda-host: more rows of logits than are held at a time", "[cuda-model]") {
  const Model model = sample_model("v2");
  const Sequence s = plain_sequence(some_tokens(model, 70));
  Evaluator at_once(cuda::host::open(model, options_of("fp32", 70)));
  Evaluator in_chunks(cuda::host::open(model, options_of("fp32", 13)));
  const Answer a = ask(at_once, s), b = ask(in_chunks, s);
  for (Index t = 0; t < s.size(); ++t) CHECK(same_row(a.logits, t, b.logits, t));
}

TEST_CASE("cuda-host: what is planned is what is taken", "[cuda-model]") {
  const Model model = sample_model("v32");
  for (const char* format : formats) {
    const EngineOptions options = options_of(format, 8);
    const Plan plan = cuda::host::plan(model.config, options, 300, 8);
    const Index before = cuda::host::allocated_bytes();
    const auto engine = cuda::host::open(model, options);
    CHECK(cuda::host::allocated_bytes() - before == plan.total() - plan.cache);
    Fed fed{*engine, plain_sequence(some_tokens(model, 300))};
    fed.feed(8);
    const Index one_page = cuda::host::allocated_bytes();
    fed.feed(1);
    CHECK(cuda::host::allocated_bytes() == one_page);
    const Index pointer = sizeof(void*);  // the list of pages
    CHECK(one_page - before == plan.total() - plan.cache / 2 + pointer);
  }
  EngineOptions small = options_of("bf16", 8);
  small.memory = 1000;
  CHECK_THROWS_WITH(cuda::host::open(model, small), Contains("leaves no room for a cache"));
}

// On a device that step is recorded, and cuBLASLt is not to be asked then
// (optimized/cuda/device/graph.cuh).
TEST_CASE("cuda-host: a second step of decoding asks cuBLASLt for nothing new", "[cuda-model]") {
  const Model model = sample_model("v32");
  const auto engine = cuda::host::open(model, options_of("bf16"));
  Fed fed{*engine, plain_sequence(some_tokens(model, 15))};
  const auto asked_by = [&](Index n) {
    const auto before = cuda::host::algorithms_asked_for();
    fed.feed(n);
    return cuda::host::algorithms_asked_for() - before;
  };
  CHECK(asked_by(13) > 0);  // no other test has passes of 13 tokens in bf16
  asked_by(1);
  CHECK(asked_by(1) == 0);
}

TEST_CASE("cuda-host: a NaN that is to be ordered is refused, and caches stay as they were",
          "[cuda-model]") {
  const std::string layer = "model.layers.2.";
  {
    const Model model = overflowing(layer + "self_attn.indexer.wq_b.weight");
    const auto engine = cuda::host::open(model, options_of("fp32"));
    const Index K = model.config.indexer->topk;
    Fed fed{*engine, plain_sequence(some_tokens(model, K + 2))};
    fed.feed(K - 1);
    const Tensor<float, 2> before = fed.feed(1);  // nothing was scored so far
    CHECK_THROWS_WITH(fed.feed(1), Contains("score of the indexer of layer 2 is NaN"));
    CHECK(fed.cache->rows() == K);
    fed.cache->keep(K - 1);
    CHECK(same_row(fed.feed(1), 0, before, 0));
  }
  const Model model = overflowing(layer + "mlp.gate.weight");
  const auto engine = cuda::host::open(model, options_of("bf16"));
  Fed fed{*engine, plain_sequence(some_tokens(model, 2))};
  CHECK_THROWS_WITH(fed.feed(2), Contains("logit of the router of layer 2 is NaN"));
  CHECK(fed.cache->rows() == 0);
}

TEST_CASE("cuda-host: what cannot be fed is refused", "[cuda-model]") {
  const Model model = sample_model("v32");
  const auto engine = cuda::host::open(model, options_of("bf16", 4));
  Fed fed{*engine, plain_sequence(some_tokens(model, 5))};
  CHECK_THROWS_WITH(fed.feed(5), Contains("5 tokens") && Contains("workspace for 4"));
  CHECK_THROWS_WITH(fed.feed(0), Contains("at least one token"));
  fed.sequence.tokens[0] = model.config.vocab_size;
  CHECK_THROWS_WITH(fed.feed(1), Contains("not one of the vocabulary"));
  fed.sequence.tokens[0] = 0;
  fed.cache = cuda::host::open(model, options_of("fp32", 4))->new_cache();
  CHECK_THROWS_WITH(fed.feed(1), Contains("new_cache()"));
  CHECK_THROWS_WITH(cuda::host::open(model, options_of("int4")), Contains("no format \"int4\""));
}

TEST_CASE("cuda: without a device, one sentence says what to do", "[cuda-model]") {
  const Model model = sample_model("v32");
  std::string name;
  try {
    name = backend_named("cuda").open(model, options_of("bf16"))->name();
  } catch (const Error& e) {
    CHECK_THAT(std::string(e.what()),
               Contains("--backend cuda needs") && Contains("cuda-host runs"));
    return skip("the device's kernels are not run: there is no device, or no code for one");
  }
  CHECK_THAT(name, Contains("cuda (bf16, "));  // here is one
}
