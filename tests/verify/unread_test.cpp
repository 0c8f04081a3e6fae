// tests/verify/unread_test.cpp — traces of an indexer whose choice the model does not read.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/catch.hpp"
#include "tests/verify/localise_helpers.hpp"
#include "verify/diagnose/diagnose.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;

namespace {

bool of_the_indexer(const std::string& name) {
  return name.ends_with("self_attn.indexer") || name.ends_with("indexer.scores");
}

/// The K best of every row, lowest keys first; -1 where fewer are seen.
std::vector<Index> best_keys(const Tensor<double, 2>& scores, Index K) {
  std::vector<Index> all;
  for (Index t = 0; t < scores.shape()[0]; ++t) {
    std::vector<Index> keys;
    for (Index s = 0; s < scores.shape()[1]; ++s)
      if (std::isfinite(scores(t, s))) keys.push_back(s);
    std::stable_sort(keys.begin(), keys.end(),
                     [&](Index a, Index b) { return scores(t, a) > scores(t, b); });
    keys.resize(static_cast<std::size_t>(K), -1);
    all.insert(all.end(), keys.begin(), keys.end());
  }
  return all;
}

}  // namespace

TEST_CASE("a shard's causal bound is named where the model reads other selections", "[judge]") {
  const ModelPair models = open_models(sample("v32") / "checkpoint", reference::Precision::fp64);
  const Index K = models.definition.config.indexer->topk;
  const Sequence sequence =
      read_recording(sample("v32") / "logits.safetensors", "fp64", 0).sequences.front();
  Recording side = dump_of(models.exact(), sequence, of_the_indexer);
  for (Index l = 0; l < models.definition.config.num_hidden_layers; ++l) {
    const std::string name = in_layer(l, names::indexer_scores);
    Tensor<double, 2> scores = side.trace.at(name).values();
    const Index T = scores.shape()[0], S = scores.shape()[1];
    for (Index t = 61; t < T; ++t)
      for (Index s = t - 37 + 1; s < S; ++s)
        scores(t, s) = -std::numeric_limits<double>::infinity();
    add_trace(side, name, Dtype::f64, {T, S}, std::vector<double>(scores.begin(), scores.end()));
    add_trace(side, in_layer(l, names::indexer), Dtype::i64, {T, K}, best_keys(scores, K));
  }
  JudgeOptions options;
  options.runs = 4;
  const Diagnosis d = diagnose(models, side, options);
  CAPTURE(d.why);
  CHECK(d.defects == std::vector<int>{111});
  REQUIRE_FALSE(d.ranking.empty());
  CHECK(d.ranking.front().variant ==
        "offset=37 from row 61, the attention reads the right selection");
}
