// The whole model: HuggingFace's logits, and the many ways to compute the same ones.
#include <set>

#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/tiny_checkpoint.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

/// Rounding apart, two ways of computing the same logits.
constexpr double tiny = 1e-12;

/// The largest distance over rows that are not padding, in units of the range of logits.
double relative(const Tensor<double, 2>& got, const Tensor<double, 2>& want,
                const Sequence& sequence) {
  double worst = 0;
  for (Index t = 0; t < sequence.size(); ++t)
    if (sequence.documents[static_cast<std::size_t>(t)] >= 0)
      worst = std::max(worst, distance(rows(got, t, t + 1), rows(want, t, t + 1)));
  return worst / range(want);
}

Sequence sequence_of(const Model& model, Index n, std::uint64_t seed = 1) {
  return plain_sequence(some_tokens(model, n, seed));
}

/// GLM shares selections, V3 has none, V3.2 selects in every layer.
const char* const three_kinds[] = {"v32", "glm", "v3"};

bool of_one_expert(const std::string& tensor) {
  return tensor.find(".mlp.experts.") != std::string::npos;
}

}  // namespace

TEST_CASE("logits are HuggingFace's in fp64", "[model][golden]") {
  for (const char* name : {"v2", "v2lite", "v3", "v32", "glm", "fp8"}) {
    const Model model = sample_model(name);
    const Recording golden = sample_golden(model, std::string(name) + "/logits");
    REQUIRE(golden.sequences.size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
      INFO(name << ", sequence " << i);
      CHECK(relative(logits_of(model, golden.sequences[i]), golden.logits[i],
                     golden.sequences[i]) <= 1e-11);
    }
  }
}

TEST_CASE("left-padded and ragged batches are HuggingFace's in fp64", "[model][golden]") {
  const Model model = sample_model("v32");
  for (const char* file : {"v32/left-padded", "v32/ragged"}) {
    const Recording golden = sample_golden(model, file);
    Index padding = 0;
    for (std::size_t i = 0; i < golden.sequences.size(); ++i) {
      const Sequence& s = golden.sequences[i];
      padding += std::count(s.documents.begin(), s.documents.end(), -1);
      INFO(file << ", sequence " << i);
      CHECK(relative(logits_of(model, s), golden.logits[i], s) <= 1e-11);
    }
    CHECK(padding == 29);
  }
}

TEST_CASE("weights read from the file as they are needed give the same bits", "[model]") {
  for (const char* name : {"fp8", "v2"}) {
    const Model stored = open_checkpoint(sample(name) / "checkpoint");
    const Sequence s = sequence_of(stored, 20);
    CHECK(distance(logits_of(stored, s), logits_of(sample_model(name), s)) == 0);
  }
}

TEST_CASE("a prefill cut anywhere equals one in one go", "[model]") {
  const char* name = GENERATE("v32", "glm", "v3");
  const Model model = sample_model(name);
  const Sequence s = sequence_of(model, 40);
  Record<double> whole;
  const auto want = logits_of(model, s, whole.tap());
  CHECK(whole.decisions.size() > 1);
  for (Index cut = 1; cut < 40; ++cut) {
    Record<double> chunks;
    const auto got = logits_in_chunks(model, s, {cut, 40}, chunks.tap());
    INFO(name << " cut at " << cut);
    CHECK(relative(got, want, s) == 0);
    CHECK(chunks.decisions == whole.decisions);
  }
}

TEST_CASE("token by token through the cache equals the prefill", "[model]") {
  for (const char* name : three_kinds) {
    const Model model = sample_model(name);
    const Sequence s = sequence_of(model, 40);
    Record<double> whole, steps;
    const auto want = logits_of(model, s, whole.tap());
    std::vector<Index> ends(40);
    for (Index t = 0; t < 40; ++t) ends[static_cast<std::size_t>(t)] = t + 1;
    INFO(name);
    CHECK(relative(logits_in_chunks(model, s, ends, steps.tap()), want, s) == 0);
    CHECK(steps.decisions == whole.decisions);
  }
}

TEST_CASE("packed documents equal separate sequences, chunked or not", "[model]") {
  for (const char* name : three_kinds) {
    const Model model = sample_model(name);
    const std::vector<std::vector<Token>> documents = {
        some_tokens(model, 31, 1), some_tokens(model, 1, 2), some_tokens(model, 28, 3)};
    const Sequence packed = packed_sequence(documents);
    const auto logits = logits_of(model, packed);
    INFO(name);
    Index begin = 0;
    for (const auto& document : documents) {
      const Sequence alone = plain_sequence(document);
      CHECK(relative(rows(logits, begin, begin + alone.size()), logits_of(model, alone), alone) ==
            0);
      begin += alone.size();
    }
    // A chunk that ends inside a document, and one that spans three.
    CHECK(relative(logits_in_chunks(model, packed, {25, 40, 60}), logits, packed) == 0);
  }
}

TEST_CASE("padding on either side changes nothing", "[model]") {
  for (const char* name : three_kinds) {
    const Model model = sample_model(name);
    const Sequence s = sequence_of(model, 33);
    const auto want = logits_of(model, s);
    INFO(name);
    std::vector<Token> tokens(7, 0);
    std::vector<Index> mask(7, 0);
    tokens.insert(tokens.end(), s.tokens.begin(), s.tokens.end());
    mask.resize(40, 1);
    const Sequence left = masked_sequence(tokens, mask);
    CHECK(relative(rows(logits_of(model, left), 7, 40), want, s) == 0);
    CHECK(relative(rows(logits_in_chunks(model, left, {5, 20, 40}), 7, 40), want, s) == 0);

    std::rotate(tokens.begin(), tokens.begin() + 7, tokens.end());
    std::rotate(mask.begin(), mask.begin() + 7, mask.end());
    const Sequence right = masked_sequence(tokens, mask);
    CHECK(relative(rows(logits_of(model, right), 0, 33), want, s) == 0);
  }
}

TEST_CASE("the absorbed form of MLA gives the expanded form's logits", "[model]") {
  for (const char* name : {"v2", "v2lite", "v3", "v32", "glm", "fp8"}) {
    const Model model = sample_model(name);
    const Sequence s = sequence_of(model, 40);
    Record<double> expanded, absorbed;
    const auto want = logits_of(model, s, expanded.tap());
    const auto got = logits_of(model, s, absorbed.tap(), reference::MlaForm::absorbed);
    INFO(name);
    CHECK(relative(got, want, s) <= 1e-11);
    CHECK(absorbed.decisions == expanded.decisions);
  }
}

TEST_CASE("a later token moves nothing before it", "[model]") {
  for (const char* name : three_kinds) {
    const Model model = sample_model(name);
    const Sequence s = sequence_of(model, 30);
    Record<double> before;
    const auto want = logits_of(model, s, before.tap());
    for (const Index t : {0, 1, 13, 24, 28}) {
      Sequence changed = s;
      Token& next = changed.tokens[static_cast<std::size_t>(t + 1)];
      next = (next + 1) % model.config.vocab_size;
      Record<double> after;
      const auto got = logits_of(model, changed, after.tap());
      INFO(name << " token " << t + 1);
      CHECK(distance(rows(got, t + 1, t + 2), rows(want, t + 1, t + 2)) > 1e-3);
      for (const auto& [tensor, x] : before.tensors) {
        if (of_one_expert(tensor)) continue;
        INFO(tensor);
        CHECK(distance(rows(after.tensors.at(tensor), 0, t + 1), rows(x, 0, t + 1)) == 0);
      }
      for (const auto& [decision, chosen] : before.decisions)
        CHECK(std::equal(chosen.begin(), chosen.begin() + t + 1,
                         after.decisions.at(decision).begin()));
    }
  }
}

TEST_CASE("the number of threads changes no bit", "[model]") {
  for (const char* name : {"v2lite", "v32", "glm"}) {
    const Model model = sample_model(name);
    const Sequence s = sequence_of(model, 30);
    std::vector<Tensor<double, 2>> logits;
    for (const int threads : {1, 2, 3})
      logits.push_back(logits_of<double>(model, s, {}, reference::MlaForm::expanded, threads));
    INFO(name);
    CHECK(distance(logits[0], logits[1]) == 0);
    CHECK(distance(logits[0], logits[2]) == 0);
  }
}

TEST_CASE("sparse attention with room for every key is dense attention", "[model]") {
  for (const char* name : {"v32", "glm"}) {
    const Model model = sample_model(name);
    const Sequence s = sequence_of(model, 40);
    Model dense = model, roomy = model, exact = model;
    dense.config.use_sparse_attention = false;
    roomy.config.indexer->topk = 1000;
    exact.config.indexer->topk = 40;
    const auto want = logits_of(dense, s);
    INFO(name);
    CHECK(relative(logits_of(roomy, s), want, s) <= tiny);
    CHECK(relative(logits_of(exact, s), want, s) <= tiny);
    CHECK(relative(logits_of(model, s), want, s) > 1e-4);
  }
}

TEST_CASE("long double agrees with double to its rounding", "[model]") {
  for (const char* name : {"v2", "v2lite", "v3", "v32", "glm", "fp8"}) {
    const Model model = sample_model(name);
    const Sequence s = sequence_of(model, 40);
    Record<double> plain;
    Record<long double> wide;
    const auto want = logits_of<long double>(model, s, wide.tap());
    const auto got = logits_of(model, s, plain.tap());
    INFO(name);
    CHECK(distance(got, want) <= tiny * range(want));
    CHECK(plain.decisions == wide.decisions);
    CHECK(plain.names == wide.names);
    if (std::numeric_limits<long double>::digits > 53) CHECK(distance(got, want) > 0);
  }
}

TEST_CASE("layers that share a selection compute none", "[model]") {
  const Model model = sample_model("glm");  // full, shared, shared, full, shared
  const Sequence s = sequence_of(model, 40);
  Record<double> record;
  const auto logits = logits_of(model, s, record.tap());
  const std::set<std::string> tensors(record.names.begin(), record.names.end());
  for (Index l = 0; l < 5; ++l) {
    const std::string at = "model.layers." + std::to_string(l) + ".self_attn.indexer";
    INFO(at);
    CHECK(record.decisions.contains(at) == (l == 0 || l == 3));
    CHECK(tensors.contains(at + ".scores") == (l == 0 || l == 3));
  }

  // Layer 0 made to choose every query's own key: layers 1 and 2 attend to it alone as well.
  Record<double> steered;
  reference::Tap<double> tap = steered.tap();
  tap.decision = [](const std::string& name, View<const double, 2>, View<Index, 2> chosen) {
    if (name != "model.layers.0.self_attn.indexer") return;
    std::fill(chosen.begin(), chosen.end(), -1);
    for (Index t = 0; t < chosen.shape[0]; ++t) chosen(t, 0) = t;
  };
  logits_of(model, s, tap);
  const Config& c = model.config;
  for (Index l = 0; l < 5; ++l) {
    const std::string at = "model.layers." + std::to_string(l) + ".self_attn.";
    const auto& kv = steered.tensors.at(at + "kv_b_proj");
    const auto& heads = steered.tensors.at(at + "heads");
    double worst = 0;
    for (Index t = 0; t < 40; ++t)
      for (Index n = 0; n < c.num_attention_heads; ++n)
        for (Index u = 0; u < c.v_head_dim; ++u)
          worst = std::max(worst, std::abs(heads(t, n * c.v_head_dim + u) -
                                           kv(t, n * (c.qk_nope_head_dim + c.v_head_dim) +
                                                     c.qk_nope_head_dim + u)));
    INFO("layer " << l);
    CHECK((worst == 0) == (l < 3));
  }
}

TEST_CASE("layers run in spans equal the whole", "[model]") {
  for (const char* name : three_kinds) {
    const Model model = sample_model(name);
    const Sequence s = sequence_of(model, 40);
    const auto want = logits_of(model, s);
    const SharingThreads scope(1);
    const auto ops = reference::definition<double>();
    const reference::Pass<double> pass{model, ops};
    const Index L = model.config.num_hidden_layers;
    for (Index cut = 0; cut <= L; ++cut) {
      INFO(name << " cut before layer " << cut);
      auto x = reference::embed(pass, s);
      reference::Cache<double> low, high;
      reference::run_layers(pass, x, s, low, 0, cut);
      if (model.config.indexer && cut < L &&
          !model.config.indexer->computes[static_cast<std::size_t>(cut)]) {
        CHECK_THROWS_WITH(reference::run_layers(pass, x, s, high, cut, L),
                          "layer " + std::to_string(cut) +
                              " shares the selection of an earlier layer, which is outside the "
                              "span; begin at a layer that computes its own");
        continue;
      }
      reference::run_layers(pass, x, s, high, cut, L);
      CHECK(distance(reference::logits(pass, x), want) == 0);
    }
  }
}
