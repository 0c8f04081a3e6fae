// tests/verify/localise_catalogue_test.cpp — of every known defect, exactly the ops that it
// replaces are found wrong by themselves, whatever departs behind them.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "tests/catch.hpp"
#include "tests/verify/localise_helpers.hpp"
#include "verify/defects/defect.hpp"

namespace {

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using reference::Precision;
using test::differ;

using Names = std::set<std::string>;

struct Bundled {
  std::string name;
  ModelPair models;
  Recording right;  // everything that the definition traces
};

/// Shortest first.
const std::vector<Bundled>& bundled() {
  static const std::vector<Bundled> all = [] {
    std::vector<Bundled> samples;
    for (const std::string name : {"fp8", "v2", "ties", "v2lite", "glm", "v3", "v32"}) {
      ModelPair models =
          open_models(test::sample(name) / "checkpoint", Precision::fp64, name == "fp8");
      const Recording golden = read_recording(test::sample(name) / "logits.safetensors", "fp64", 0);
      Recording right = dump_of(models.exact(), golden.sequences[0], everything);
      samples.push_back({name, std::move(models), std::move(right)});
    }
    return samples;
  }();
  return all;
}

/// In some tensor that `a` holds.
bool differ(const Recording& a, const Recording& b) {
  const auto& entries = a.trace.entries();
  return std::any_of(entries.begin(), entries.end(), [&](const Trace::Entry& entry) {
    return differ(entry.values(), b.trace.at(entry.name).values());
  });
}

const Names rotated = {"self_attn.q_rope", "self_attn.k_rope", "self_attn.indexer.q",
                       "self_attn.indexer.k"};
/// Those with several rows of block scales in the sample, q_a_proj and kv_a_proj excepted.
const Names taller_than_a_block = {"self_attn.indexer.wq_b",
                                   "self_attn.kv_b_proj",
                                   "self_attn.o_proj",
                                   "mlp.gate_proj",
                                   "mlp.up_proj",
                                   "mlp.down_proj",
                                   "mlp.shared_experts.down_proj",
                                   "mlp.experts"};
const Names latent_norms = {"self_attn.q_a_layernorm", "self_attn.kv_a_layernorm"};
const Names block_norms = {"input_layernorm", "post_attention_layernorm", "model.norm"};
const Names quantised = {"self_attn.q_a_proj",
                         "self_attn.q_b_proj",
                         "self_attn.kv_a_proj_with_mqa",
                         "self_attn.kv_b_proj",
                         "self_attn.o_proj",
                         "self_attn.indexer.wq_b",
                         "self_attn.indexer.wk",
                         "mlp.gate_proj",
                         "mlp.up_proj",
                         "mlp.down_proj",
                         "mlp.shared_experts.gate_proj",
                         "mlp.shared_experts.up_proj",
                         "mlp.shared_experts.down_proj",
                         "mlp.experts"};

Names both(Names a, const Names& b) {
  a.insert(b.begin(), b.end());
  return a;
}

Names without(Names a, const std::string& name) {
  a.erase(name);
  return a;
}

/// What a defect makes wrong beyond its first tensor: it replaces several ops, changes what several
/// are told (YaRN's frequencies), or acts where nothing is traced (what the index cache keeps).
const std::map<std::string, Names>& several() {
  static const std::map<std::string, Names> names = {
      {"indexer-rope-interleaved", {"self_attn.indexer.q", "self_attn.indexer.k"}},
      {"indexer-rope-half-split", {"self_attn.indexer.q", "self_attn.indexer.k"}},
      {"indexer-rope-last-channels", {"self_attn.indexer.q", "self_attn.indexer.k"}},
      {"indexer-rope-missing (query and key)", {"self_attn.indexer.q", "self_attn.indexer.k"}},
      {"indexer-hadamard-before-rope", {"self_attn.indexer.wq_b", "self_attn.indexer.k_norm"}},
      {"indexer-key-norm-after-rope", {"self_attn.indexer.k_norm", "self_attn.indexer.scores"}},
      {"selection-before-mask (masked after by a finite number)",
       {"self_attn.indexer.scores", "self_attn.heads"}},
      {"selection-mask-added-as-numbers (masked 1, masked after by a finite number)",
       {"self_attn.indexer.scores", "self_attn.heads"}},
      {"shared-mask-in-attention", {"self_attn.indexer.scores", "self_attn.heads"}},
      {"rope-amplified (besides the scale)", rotated},
      {"rope-amplified (besides the scale, in MLA only)", {"self_attn.q_rope", "self_attn.k_rope"}},
      {"rope-positions-of-chunk", rotated},
      {"rope-amplified (in place of the scale)", both(rotated, {"self_attn.heads"})},
      {"yarn-gated-off", both(rotated, {"self_attn.heads"})},
      {"yarn-frequencies", rotated},
      {"rope-theta", rotated},
      {"rope-other-convention", {"self_attn.q_rope", "self_attn.k_rope"}},
      {"rope-missing (query and key)", {"self_attn.q_rope", "self_attn.k_rope"}},
      {"query-split-swapped", {"self_attn.q_rope", "self_attn.heads"}},
      {"block-norm-eps", block_norms},
      {"every-norm-eps", both(block_norms, latent_norms)},
      {"latent-norm-eps", latent_norms},
      {"latent-norm-eps-of-config", latent_norms},
      {"norm-reduced-in-bf16", both(block_norms, latent_norms)},
      {"norm-gain-plus-one", both(block_norms, latent_norms)},
      {"norm-subtracts-mean", both(block_norms, latent_norms)},
      {"router-softmax", {"mlp.gate.choice", "mlp.gate.weights"}},
      {"router-softmax-of-all", {"mlp.gate.choice", "mlp.gate.experts", "mlp.gate.weights"}},
      {"swiglu-operands-swapped", {"mlp.down_proj", "mlp.shared_experts.down_proj", "mlp.experts"}},
      {"swiglu-operands-swapped-but-in-experts", {"mlp.down_proj", "mlp.shared_experts.down_proj"}},
      {"experts-gate-and-up-swapped", {"mlp.experts"}},
      {"previous-layer-mlp-gate", {"mlp.gate.logits", "mlp.gate.choice"}},
      {"previous-layer-mlp-experts", {"mlp.experts"}},
      {"previous-layer-mlp-shared-experts",
       {"mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj",
        "mlp.shared_experts.down_proj"}},
      {"yarn-default-betas", rotated},
      {"fp8-last-scale-row", taller_than_a_block},
      {"fp8-scale-ignored", quantised},
      {"fp8-scale-ignored (first block's)", without(quantised, "self_attn.q_b_proj")},
      {"fp8-weights-as-e4m3fnuz", quantised},
      {"fp8-scale-inverted", quantised},
      {"fp8-scales-transposed", {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}},
      // Either order of equal scores is right: nothing is wrong, and nothing is said to be.
      {"selection-ties-highest-first", {}},
  };
  return names;
}

std::string full_name(const Defect& defect, const DefectVariant& variant) {
  return defect.name + (variant.name.empty() ? "" : " (" + variant.name + ")");
}

/// Of a sample: names that its model does not have are left out.
Names expected(const Defect& defect, const DefectVariant& variant, const Recording& right) {
  Names names = {defect.first};
  for (const std::string& key : {defect.name, full_name(defect, variant)})
    if (const auto found = several().find(key); found != several().end()) names = found->second;
  Names present;
  for (const Trace::Entry& entry : right.trace.entries()) present.insert(short_name(entry.name));
  std::erase_if(names, [&](const std::string& name) { return !present.contains(name); });
  return names;
}

/// The first sample on which the variant changes anything, and its dump.
struct Seen {
  const Bundled* sample = nullptr;
  Recording dump;
};

std::optional<Seen> seen(const Defect& defect, const DefectVariant& variant) {
  for (const Bundled& sample : bundled()) {
    if (!defect.applies(sample.models.definition.config)) continue;
    Variant broken = sample.models.exact();
    variant.apply(broken);
    Recording dump = dump_of(broken, sample.right.sequences[0], everything);
    if (differ(dump, sample.right)) return Seen{&sample, std::move(dump)};
  }
  return std::nullopt;
}

/// As HuggingFace's modules would show it.
Recording of_modules(Recording dump) {
  dump.trace.erase_if([](const std::string& name) { return !modules(name); });
  return dump;
}

}  // namespace

TEST_CASE("of every known defect, exactly the ops that it replaces are wrong by themselves",
          "[localise][slow]") {
  int variants = 0;
  for (const Defect& defect : all_defects())
    for (const DefectVariant& variant : defect.variants) {
      INFO(full_name(defect, variant));
      const std::optional<Seen> found = seen(defect, variant);
      REQUIRE(found);
      INFO("sample " << found->sample->name);
      const Names want = expected(defect, variant, found->sample->right);
      const Grafted all = graft(found->sample->models, found->dump, quick(Precision::fp64));
      CHECK(wrong_names(all) == want);
      CHECK(all.unjudged.empty());
      for (const FaultyOp& wrong : all.wrong) CHECK(wrong.ops.size() == 1);

      // What the trace leaves out widens the ops: they hold one of those that are wrong, and all
      // of these lie in some. (Group scores, for one, may be wrong and change no choice.)
      const Recording shown = of_modules(found->dump);
      ++variants;
      if (!differ(shown, found->sample->right)) continue;
      const Grafted some = graft(found->sample->models, shown, quick(Precision::fp64));
      Names suspected;
      for (const FaultyOp& wrong : some.wrong) {
        Names ops;
        for (const std::string& op : wrong.ops) ops.insert(short_name(op));
        INFO(wrong.tensor.name);
        CHECK(std::any_of(ops.begin(), ops.end(),
                          [&](const std::string& op) { return want.contains(op); }));
        suspected.insert(ops.begin(), ops.end());
      }
      CHECK(std::includes(suspected.begin(), suspected.end(), want.begin(), want.end()));
    }
  CHECK(variants > 150);
}
