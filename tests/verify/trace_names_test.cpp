// tests/verify/trace_names_test.cpp — names of traces: taken apart, and the graph of what is made
// from what against what the reference does on every bundled sample.
#include "core/trace_names.hpp"

#include <algorithm>
#include <filesystem>
#include <set>

#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/paths.hpp"
#include "verify/names/dataflow.hpp"
#include "verify/runs/reference_run.hpp"

using namespace dsa;
using namespace dsa::verify;

namespace {

struct Traced {
  Config config;
  std::vector<std::string> order;  // tensors and decisions, as they came
};

/// The first tokens of a model's vocabulary: what is traced does not depend on them.
Traced traced(const std::filesystem::path& checkpoint) {
  const Model model = open_checkpoint(checkpoint);
  RunOptions options;
  options.span = {0, model.config.num_hidden_layers};
  options.keep = [](const std::string&) { return true; };
  const Run run =
      run_reference(model, plain_sequence({0, 1, 2, 3}), reference::definition<double>(), options);
  return {model.config, run.order};
}

/// Of one routed expert, whose rows are the tokens that chose it.
bool is_within_expert(const std::string& name) {
  return within_layer(name).starts_with(std::string(names::experts) + ".");
}

}  // namespace

TEST_CASE("a name taken apart", "[judge][trace-names]") {
  CHECK(layer_of("model.layers.0") == 0);
  CHECK(layer_of("model.layers.12.self_attn.indexer.scores") == 12);
  for (const char* outside : {"model.norm", "model.embed_tokens", "lm_head", "", "model.layers.",
                              "model.layers.x", "model.layers.1x.mlp", "model.layers.-1.mlp",
                              "decoder.layers.3.mlp", "model.layers.99999999999999999999.mlp"}) {
    CAPTURE(outside);
    CHECK(layer_of(outside) == -1);
    CHECK(within_layer(outside).empty());
  }
  CHECK(within_layer("model.layers.3").empty());
  CHECK(within_layer("model.layers.3.mlp.gate.logits") == names::gate_logits);
  CHECK(in_layer(3, names::heads) == "model.layers.3.self_attn.heads");
  CHECK(sibling("model.layers.3.mlp.gate.weights", names::gate_experts) ==
        "model.layers.3.mlp.gate.experts");
  CHECK(sibling("model.norm", names::gate_experts) == "model.norm");

  CHECK(is_selection(in_layer(0, names::indexer)));
  CHECK(!is_selection(in_layer(0, names::indexer_scores)));
  CHECK(is_routing(in_layer(0, names::gate_groups)));
  CHECK(is_routing(in_layer(0, names::gate_experts)));
  CHECK(!is_routing(in_layer(0, names::gate_weights)));
  CHECK(is_decision(in_layer(7, names::indexer)));
  CHECK(is_indexer_part(in_layer(7, names::indexer_wk)));
  CHECK(is_indexer_part(in_layer(7, names::indexer)));
  CHECK(!is_indexer_part(in_layer(7, names::heads)));
}

TEST_CASE("the graph of traces is what the reference does, on every sample",
          "[judge][trace-names]") {
  std::set<std::string> seen;  // within a layer, by any sample
  Index samples = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(test::source_dir()) / "data/samples")) {
    if (!std::filesystem::exists(entry.path() / "checkpoint/config.json")) continue;
    ++samples;
    const Traced run = traced(entry.path() / "checkpoint");
    std::set<std::string> before, used;
    for (const std::string& name : run.order) {
      CAPTURE(entry.path().filename().string(), name);
      if (is_within_expert(name)) {
        CHECK(!is_traced(name));
        continue;
      }
      CHECK(is_traced(name));
      Index from = 0;
      for (const std::string& input : inputs_of(name, run.config)) {
        const bool exists = std::find(run.order.begin(), run.order.end(), input) != run.order.end();
        CHECK(exists == before.contains(input));  // nothing is made from what comes later
        from += exists;
        used.insert(input);
      }
      CHECK((from > 0 || name == names::embed_tokens));
      CHECK(before.insert(name).second);
      if (const auto rest = within_layer(name); !rest.empty()) seen.insert(std::string(rest));
    }
    for (const std::string& name : before) {  // and nothing is computed for nobody
      CAPTURE(entry.path().filename().string(), name);
      CHECK((used.contains(name) || name == names::lm_head || !run.config.use_sparse_attention));
    }
  }
  CHECK(samples > 0);
  const std::vector<std::string> known = traced_within_layer();
  CHECK(seen == std::set<std::string>(known.begin(), known.end()));
}
