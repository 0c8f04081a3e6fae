// The CPU backend's whole model: in one form of MLA, how tokens are cut into passes, packed and
// padded changes nothing.
#include "core/json.hpp"
#include "optimized/cpu/model/engine.hpp"
#include "optimized/cpu/model/forward.hpp"
#include "optimized/engine/session.hpp"
#include "tests/answers.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/tiny_checkpoint.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;

namespace {

using test::ask;

constexpr Format formats[] = {Format::fp32, Format::bf16, Format::fp8};
constexpr const char* families[] = {"v2", "v2lite", "v3", "v32", "glm"};

Model tiny_model(const Json& extra = Json::object()) {
  Json json = tiny_config();
  json.update(extra);
  return random_model(parse_config(json, "the tiny config"), 1);
}

EngineOptions options_of(Format format, Index chunk, int threads = 1, const std::string& mla = {}) {
  EngineOptions options;
  options.mla = mla;
  options.format = name_of(format);
  options.chunk = chunk;
  options.threads = threads;
  return options;
}

/// In absorbed form, whose bits do not depend on how tokens are cut into passes.
Answer ask(const Model& model, Format format, const Sequence& s,
           const std::vector<Index>& ends = {}, Index chunk = 512, const char* mla = "absorbed") {
  Evaluator evaluator(cpu::open(model, options_of(format, chunk, 1, mla)));
  return ask(evaluator, s, ends);
}

/// The forms whose bits do not depend on it: expanded only where nothing is attended to sparsely.
std::vector<const char*> forms_of(const Model& model) {
  if (model.config.indexer) return {"absorbed"};
  return {"absorbed", "expanded"};
}

/// Rows [begin, end) of a are those of b from `first` on, to the bit.
void check_same_rows(const Tensor<float, 2>& a, Index begin, Index end, const Tensor<float, 2>& b,
                     Index first) {
  Index different = 0;
  for (Index t = begin; t < end; ++t)
    different +=
        !std::equal(a.view()[t].begin(), a.view()[t].end(), b.view()[first + t - begin].begin());
  CHECK(different == 0);
}

bool is_decision(const std::string& name) {
  return name.ends_with("self_attn.indexer") || name.ends_with("mlp.gate.experts");
}

/// Both made the same decisions, and some.
void check_same_decisions(const Trace& a, const Trace& b) {
  int decisions = 0;
  for (const Trace::Entry& entry : a.entries()) {
    if (!is_decision(entry.name)) continue;
    ++decisions;
    INFO(entry.name);
    REQUIRE(b.find(entry.name) != nullptr);
    CHECK(distance(entry.values(), b.find(entry.name)->values()) == 0);
  }
  CHECK(decisions > 0);
}

}  // namespace

TEST_CASE("chunks and decoding give a prefill's bits and decisions", "[cpu-model]") {
  for (const char* family : families) {
    const Model model = sample_model(family);
    const Sequence s = plain_sequence(some_tokens(model, 64));
    std::vector<Index> steps;
    for (Index t = 1; t <= s.size(); ++t) steps.push_back(t);
    for (const Format format : formats)
      for (const char* mla : forms_of(model)) {
        Evaluator evaluator(cpu::open(model, options_of(format, 64, 1, mla)));
        const Answer whole = ask(evaluator, s);
        for (const auto& ends : {std::vector<Index>{7, 14, 21, 28, 35, 42, 49, 56, 63}, steps}) {
          INFO(family << " " << name_of(format) << " " << mla << ", " << ends.size() << " passes");
          const Answer cut = ask(evaluator, s, ends);
          check_same_rows(cut.logits, 0, s.size(), whole.logits, 0);
          check_same_decisions(whole.trace, cut.trace);
        }
      }
  }
}

TEST_CASE("the same beyond a page of the cache", "[cpu-model]") {
  for (const char* family : {"v3", "v32"}) {
    const Model model = sample_model(family);
    const Sequence s = plain_sequence(some_tokens(model, 300));
    for (const Format format : formats)
      for (const char* mla : forms_of(model)) {
        Evaluator evaluator(cpu::open(model, options_of(format, 300, 2, mla)));
        const Answer whole = ask(evaluator, s),
                     cut = ask(evaluator, s, {1, 130, 255, 256, 257, 299});
        INFO(family << " " << name_of(format) << " " << mla);
        check_same_rows(cut.logits, 0, s.size(), whole.logits, 0);
        check_same_decisions(whole.trace, cut.trace);
      }
  }
}

TEST_CASE("a pass is no longer than a chunk", "[cpu-model]") {
  const Model model = sample_model("v32");
  const Sequence s = plain_sequence(some_tokens(model, 50));
  const Answer whole = ask(model, Format::fp32, s);
  check_same_rows(ask(model, Format::fp32, s, {}, 7).logits, 0, 50, whole.logits, 0);
  const auto engine = cpu::open(model, options_of(Format::fp32, 7));
  CHECK(engine->pass_tokens() == 7);
  const auto cache = engine->new_cache();
  const std::vector<std::int32_t> begin(8);
  const Feed feed{cache.get(), std::span(s.tokens).first(8), std::span(s.positions).first(8),
                  begin};
  Tensor<float, 2> logits({8, model.config.vocab_size});
  CHECK_THROWS_WITH(engine->forward({&feed, 1}, LogitsOf::every_token, logits),
                    Contains("8 tokens") && Contains("workspace for 7"));
}

TEST_CASE("a cache of another backend is refused, and nothing is committed", "[cpu-model]") {
  struct Foreign : SequenceCache {};
  const Model model = sample_model("v32");
  const auto engine = cpu::open(model, options_of(Format::bf16, 8));
  const auto own = engine->new_cache();
  Foreign foreign;
  const Token token = 1;
  const Index position = 0;
  const std::int32_t begin = 0;
  Feed feeds[] = {{own.get(), {&token, 1}, {&position, 1}, {&begin, 1}},
                  {&foreign, {&token, 1}, {&position, 1}, {&begin, 1}}};
  Tensor<float, 2> logits({2, model.config.vocab_size});
  CHECK_THROWS_WITH(engine->forward(feeds, LogitsOf::every_token, logits),
                    Contains("not one of the CPU backend"));
  CHECK(own->rows() == 0);
  const auto second = engine->new_cache();
  feeds[1].cache = second.get();
  engine->forward(feeds, LogitsOf::every_token, logits);
  CHECK(own->rows() == 1);
  CHECK_THROWS_WITH(own->keep(2), Contains("cannot keep more tokens"));
}

TEST_CASE("padding is not seen, wherever it stands", "[cpu-model]") {
  const Model model = sample_model("v32");
  const std::vector<Token> tokens = some_tokens(model, 40);
  std::vector<Token> padded = tokens;
  padded.insert(padded.begin(), 5, 0);
  padded.insert(padded.begin() + 30, 2, 0);
  padded.insert(padded.end(), 3, 0);
  std::vector<Index> mask(padded.size(), 1);
  for (const std::size_t at : {0, 1, 2, 3, 4, 30, 31, 47, 48, 49}) mask[at] = 0;
  for (const Format format : formats) {
    const Answer plain = ask(model, format, plain_sequence(tokens)),
                 got = ask(model, format, masked_sequence(padded, mask), {2, 29, 33});
    check_same_rows(got.logits, 5, 30, plain.logits, 0);
    check_same_rows(got.logits, 32, 47, plain.logits, 25);
    for (const Index t : {0, 4, 30, 49})
      CHECK(std::all_of(got.logits.view()[t].begin(), got.logits.view()[t].end(),
                        [](float x) { return x == 0; }));
    const auto chosen = got.trace.find("model.layers.0.self_attn.indexer")->values();
    CHECK(chosen(5, 0) == 5);    // the first token sees itself, in its place in the sequence
    CHECK(chosen(30, 0) == -1);  // padding sees nothing
  }
}

TEST_CASE("documents of a packed sequence do not see each other", "[cpu-model]") {
  for (const char* family : {"v3", "v32", "glm"}) {
    const Model model = sample_model(family);
    const auto a = some_tokens(model, 30, 1), b = some_tokens(model, 45, 2);
    INFO(family);
    const Answer packed = ask(model, Format::fp32, packed_sequence({a, b}), {30, 50});
    const Answer first = ask(model, Format::fp32, plain_sequence(a)),
                 second = ask(model, Format::fp32, plain_sequence(b));
    check_same_rows(packed.logits, 0, 30, first.logits, 0);
    // Sums over keys may be cut elsewhere: equal but for rounding, unless a decision were turned.
    const auto rows_of = [](const Tensor<float, 2>& x, Index begin, Index end) {
      return rows(x, begin, end);
    };
    CHECK(distance(rows_of(packed.logits, 30, 75), second.logits) <= 1e-3 * range(second.logits));
    for (const Trace::Entry& entry : second.trace.entries()) {
      if (!is_decision(entry.name)) continue;
      const auto all = packed.trace.at(entry.name).values(), alone = entry.values();
      const bool keys = entry.name.ends_with("indexer");
      Index different = 0;
      for (Index t = 0; t < 45; ++t)
        for (Index i = 0; i < all.shape()[1]; ++i) {
          const double mine = all(30 + t, i);
          different += (keys && mine >= 0 ? mine - 30 : mine) != alone(t, i);
        }
      INFO(entry.name);
      CHECK(different == 0);
    }
  }
  CHECK_THROWS_WITH(unpadded({{1, 2, 3}, {0, 0, 1}, {0, 1, 0}}), Contains("document 0"));
}

TEST_CASE("sequences decoded together give what each gives alone", "[cpu-model]") {
  for (const Format format : formats) {
    const Model model = sample_model("v32");
    const auto engine = cpu::open(model, options_of(format, 64, 1, "absorbed"));
    const Index lengths[] = {30, 12, 55}, V = model.config.vocab_size;
    std::vector<Sequence> sequences;
    std::vector<std::unique_ptr<SequenceCache>> caches;
    std::vector<Answer> alone;
    for (const Index n : lengths) {
      sequences.push_back(plain_sequence(some_tokens(model, n, static_cast<std::uint64_t>(n))));
      caches.push_back(engine->new_cache());
      alone.push_back(ask(model, format, sequences.back()));
    }
    const std::vector<std::int32_t> begin(64);
    const auto feeds = [&](std::size_t i, Index from, Index to) {
      const auto n = static_cast<std::size_t>(to - from), at = static_cast<std::size_t>(from);
      return Feed{caches[i].get(), std::span(sequences[i].tokens).subspan(at, n),
                  std::span(sequences[i].positions).subspan(at, n), std::span(begin).first(n)};
    };
    Tensor<float, 2> logits({3, V});
    const Feed all[] = {feeds(0, 0, 28), feeds(1, 0, 10), feeds(2, 0, 20)};
    engine->forward(all, LogitsOf::last_of_each_feed, logits);
    check_same_rows(logits, 0, 1, alone[0].logits, 27);
    const Feed rest{feeds(2, 20, 53)};
    Tensor<float, 2> one({1, V});
    engine->forward({&rest, 1}, LogitsOf::last_of_each_feed, one);
    for (Index step = 0; step < 2; ++step) {
      std::vector<Feed> next;
      for (std::size_t i = 0; i < 3; ++i)
        next.push_back(feeds(i, lengths[i] - 2 + step, lengths[i] - 1 + step));
      engine->forward(next, LogitsOf::last_of_each_feed, logits);
      for (Index i = 0; i < 3; ++i)
        check_same_rows(logits, i, i + 1, alone[static_cast<std::size_t>(i)].logits,
                        lengths[i] - 2 + step);
    }
  }
}

TEST_CASE("every pass attends in the form of fewer operations", "[cpu-model]") {
  const Model model = sample_model("v3");
  const Sequence s = plain_sequence(some_tokens(model, 64));
  for (const Format format : formats) {
    const auto of = [&](const char* mla, const std::vector<Index>& ends) {
      return ask(model, format, s, ends, 64, mla).logits;
    };
    const auto expanded = of("expanded", {}), absorbed = of("absorbed", {});
    const auto prefill = of("automatic", {}), cut = of("automatic", {63});
    CHECK(distance(expanded, absorbed) > 0);
    check_same_rows(prefill, 0, 64, expanded, 0);
    check_same_rows(cut, 0, 63, expanded, 0);
    CHECK(distance(cut, expanded) > 0);
  }
}

TEST_CASE("a feed attends in its own form, whatever the others of its pass", "[cpu-model]") {
  const Model model = sample_model("v3");
  const Index V = model.config.vocab_size;
  const Sequence s = plain_sequence(some_tokens(model, 64));
  const std::vector<std::int32_t> begin(64);
  // A token after 30 others is absorbed, the first tokens of a sequence are expanded.
  const Index first[] = {0, 30, 31, 0}, last[] = {20, 31, 32, 5};
  for (const Format format : formats) {
    const cpu::PackedModel packed = cpu::pack(model, format, {});
    cpu::Workspace workspace(model.config, format, 64, 1);
    const auto answer = [&](bool together) {
      std::vector<cpu::Cache> caches;
      for (int i = 0; i < 4; ++i) caches.emplace_back(model.config, format);
      const auto feed = [&](std::size_t i, Index from, Index to) {
        const auto n = static_cast<std::size_t>(to - from), at = static_cast<std::size_t>(from);
        return Feed{&caches[i], std::span(s.tokens).subspan(at, n),
                    std::span(s.positions).subspan(at, n), std::span(begin).first(n)};
      };
      Tensor<float, 2> logits({4, V});
      std::vector<Feed> feeds;
      for (std::size_t i = 0; i < 4; ++i) {
        const View<float, 2> row{logits.view()[static_cast<Index>(i)].data, {1, V}};
        const Feed before = feed(i, 0, first[i]), next = feed(i, first[i], last[i]);
        if (before.size() > 0)
          cpu::forward(packed, workspace, {&before, 1}, LogitsOf::last_of_each_feed, row);
        if (!together)
          cpu::forward(packed, workspace, {&next, 1}, LogitsOf::last_of_each_feed, row);
        feeds.push_back(next);
      }
      if (together) cpu::forward(packed, workspace, feeds, LogitsOf::last_of_each_feed, logits);
      return logits;
    };
    check_same_rows(answer(true), 0, 4, answer(false), 0);
  }
}

TEST_CASE("up to index_topk keys, sparse is dense", "[cpu-model]") {
  for (const char* family : {"v32", "glm"}) {
    Model model = sample_model(family);
    const Index K = model.config.indexer->topk;
    const Sequence s = plain_sequence(some_tokens(model, K + 1));
    const Answer sparse = ask(model, Format::fp32, s);
    model.config.use_sparse_attention = false;
    const Answer dense = ask(model, Format::fp32, s);
    INFO(family);
    check_same_rows(sparse.logits, 0, K, dense.logits, 0);
    CHECK(distance(rows(sparse.logits, K, K + 1), rows(dense.logits, K, K + 1)) > 0);
    CHECK(dense.trace.find("model.layers.0.self_attn.indexer") == nullptr);
  }
}

TEST_CASE("tied heads, biases and what few configs have", "[cpu-model]") {
  const Json v2 = {{"model_type", "deepseek_v2"},
                   {"topk_method", "greedy"},
                   {"n_group", nullptr},
                   {"topk_group", nullptr},
                   {"mlp_bias", true}};
  for (const Json& extra : {Json{{"tie_word_embeddings", true}}, Json{{"attention_bias", true}},
                            Json{{"model_type", "deepseek_v3"}, {"q_lora_rank", nullptr}}, v2}) {
    const Model model = tiny_model(extra);
    const Sequence s = plain_sequence(some_tokens(model, 9));
    const auto want = logits_of(model, s);
    const Answer got = ask(model, Format::fp32, s);
    Tensor<double, 2> wide(got.logits.shape());
    std::copy(got.logits.begin(), got.logits.end(), wide.begin());
    INFO(extra.dump());
    CHECK(distance(want, wide) <= 1e-4 * range(want));
  }
}

TEST_CASE("a session is a prefill and steps", "[cpu-model]") {
  const Model model = sample_model("v32");
  const std::vector<Token> tokens = some_tokens(model, 60);
  EngineOptions options = options_of(Format::fp32, 16, 1, "absorbed");
  Session session(cpu::open(model, options));
  const Answer whole = ask(model, Format::fp32, plain_sequence(tokens));
  const auto matches = [&](View<const float, 1> logits, Index row) {
    return std::equal(logits.begin(), logits.end(), whole.logits.view()[row].begin());
  };
  for (int again = 0; again < 2; ++again) {
    CHECK(matches(session.append(std::span(tokens).first(50)), 49));
    for (std::size_t t = 50; t < 60; ++t)
      CHECK(matches(session.append(std::span(tokens).subspan(t, 1)), static_cast<Index>(t)));
    CHECK(session.length() == 60);
    session.clear();
  }
  CHECK_THROWS_WITH(session.append({}), Contains("no token"));
  const Token outside[] = {model.config.vocab_size};
  CHECK_THROWS_WITH(session.append(outside), Contains("not one of the vocabulary"));
  CHECK(session.length() == 0);
  options.memory = 1000;
  CHECK_THROWS_WITH(cpu::open(model, options), Contains("leaves no room for a cache"));
}

TEST_CASE("formats are named", "[cpu-model]") {
  for (const Format format : formats) CHECK(format_named(name_of(format)) == format);
  CHECK_THROWS_WITH(format_named("int4"), Contains("choose one of fp32, bf16, fp8"));
}
