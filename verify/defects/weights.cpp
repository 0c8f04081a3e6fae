// Weights that a loader puts into the wrong place.
#include <map>

#include "verify/defects/alter.hpp"

namespace dsa::verify {
namespace {

/// One module of a layer, as tensor names have it, and the first tensor that its weights make.
struct Module {
  const char* name;
  const char* first;
};

constexpr Module modules[] = {
    {"input_layernorm", "input_layernorm"},
    {"self_attn.q_a_proj", "self_attn.q_a_proj"},
    {"self_attn.q_a_layernorm", "self_attn.q_a_layernorm"},
    {"self_attn.q_b_proj", "self_attn.q_b_proj"},
    {"self_attn.q_proj", "self_attn.q_proj"},
    {"self_attn.kv_a_proj_with_mqa", "self_attn.kv_a_proj_with_mqa"},
    {"self_attn.kv_a_layernorm", "self_attn.kv_a_layernorm"},
    {"self_attn.kv_b_proj", "self_attn.kv_b_proj"},
    {"self_attn.indexer.wq_b", "self_attn.indexer.wq_b"},
    {"self_attn.indexer.wk", "self_attn.indexer.wk"},
    {"self_attn.indexer.k_norm", "self_attn.indexer.k_norm"},
    {"self_attn.indexer.weights_proj", "self_attn.indexer.weights_proj"},
    {"self_attn.o_proj", "self_attn.o_proj"},
    {"post_attention_layernorm", "post_attention_layernorm"},
    {"mlp.gate", "mlp.gate.logits"},
    {"mlp.experts", "gate_proj"},
    {"mlp.shared_experts", "mlp.shared_experts.gate_proj"},
};

std::string of_layer(Index layer, const std::string& module) {
  return "model.layers." + std::to_string(layer) + "." + module + ".";
}

/// Layers that `only` lets through take the module of the layer before them, where it has one.
void shift_weights(Variant& altered, const std::string& module,
                   const std::function<bool(Index)>& only) {
  const Config& config = altered.model.config;
  std::map<std::string, Parameter> before;
  for_each_tensor(
      altered.model.weights, config,
      [&](Name name, const Parameter& p, const std::vector<Index>&) { before[name] = p; });
  for_each_tensor(
      altered.model.weights, config, [&](Name name, Parameter& p, const std::vector<Index>&) {
        for (Index layer = 1; layer < config.num_hidden_layers; ++layer) {
          const std::string here = of_layer(layer, module);
          if (!name.starts_with(here) || !only(layer)) continue;
          const auto found = before.find(of_layer(layer - 1, module) + name.substr(here.size()));
          if (found == before.end() || !found->second.present() || found->second.shape != p.shape)
            continue;
          const std::optional<Dtype> loaded_as = p.loaded_as;
          p = found->second;
          p.loaded_as = loaded_as;
        }
      });
}

/// Some layer and the one before it both have the module.
bool has_twice(const Config& config, const std::string& module) {
  Weights weights = empty_weights(config);
  std::map<std::string, bool> there;
  for_each_tensor(weights, config, [&](Name name, const Parameter&, const std::vector<Index>&) {
    for (Index layer = 0; layer < config.num_hidden_layers; ++layer)
      if (name.starts_with(of_layer(layer, module))) there[of_layer(layer, module)] = true;
  });
  for (Index layer = 1; layer < config.num_hidden_layers; ++layer)
    if (there.contains(of_layer(layer, module)) && there.contains(of_layer(layer - 1, module)))
      return true;
  return false;
}

using Parameters = std::map<std::string, Parameter>;

/// The module's weights are those of `others`, in every layer (-1) or one.
DefectVariant taken_from(const std::shared_ptr<const Parameters>& others, const std::string& module,
                         Index only) {
  const std::string where = only < 0 ? "every layer" : "layer " + std::to_string(only);
  return {module + " of " + where, [=](Variant& altered) {
            const Config& config = altered.model.config;
            for_each_tensor(altered.model.weights, config,
                            [&](Name name, Parameter& p, const std::vector<Index>&) {
                              const Index layer = layer_of(name);
                              if (layer < 0 || (only >= 0 && layer != only) ||
                                  !name.starts_with(of_layer(layer, module)))
                                return;
                              const auto found = others->find(name);
                              if (found == others->end() || found->second.shape != p.shape) return;
                              const std::optional<Dtype> loaded_as = p.loaded_as;
                              p = found->second;
                              p.loaded_as = loaded_as;
                            });
          }};
}

DefectVariant in_every_layer(const std::string& module) {
  return {"every layer", [module](Variant& altered) {
            shift_weights(altered, module, [](Index) { return true; });
          }};
}

/// One layer at a time: the lowest ones of a deep model.
std::vector<DefectVariant> in_one_layer(const std::string& module, const Config& config) {
  constexpr Index most = 8;
  std::vector<DefectVariant> variants;
  for (Index l = 1; l < std::min(config.num_hidden_layers, most + 1); ++l)
    variants.push_back({"layer " + std::to_string(l), [module, l](Variant& altered) {
                          shift_weights(altered, module, [l](Index layer) { return layer == l; });
                        }});
  return variants;
}

/// "previous-layer-kv-a-proj-with-mqa"
std::string defect_name(std::string module) {
  if (const auto dot = module.rfind('.'); dot != std::string::npos && !module.starts_with("mlp"))
    module =
        (module.find("indexer.") != std::string::npos ? "indexer-" : "") + module.substr(dot + 1);
  for (char& c : module)
    if (c == '_' || c == '.') c = '-';
  return "previous-layer-" + module;
}

}  // namespace

/// The rows of kv_a_proj_with_mqa behind those of the latent, that make k_rope, are zeros.
void lose_rope_rows(Variant& altered) {
  around(altered.ops.linear, ends("self_attn.kv_a_proj_with_mqa"),
         [R = altered.model.config.kv_lora_rank](const auto& inner, Name name, Out y, In x,
                                                 const Linear& w) {
           inner(name, y, x, w);
           for (Index t = 0; t < y.shape[0]; ++t)
             for (Index c = R; c < y.shape[1]; ++c) y(t, c) = 0;
         });
}

std::vector<Defect> weight_defects() {
  std::vector<Defect> all = {
      {116,
       "kv-a-rope-rows-lost",
       "The last rows of kv_a_proj_with_mqa, those of k_rope, are lost where it is fused with "
       "q_a_proj: they are zero.",
       issue("vllm-project/vllm-ascend", 15346),
       "self_attn.kv_a_proj_with_mqa",
       any_model,
       {{"", lose_rope_rows}}}};
  for (const Module& module : modules) {
    const std::string name = module.name;
    Defect defect{114,
                  defect_name(name),
                  "A reused staging buffer: " + name + " holds the weights of the layer before.",
                  issue("vllm-project/vllm", 46078),
                  module.first,
                  [name](const Config& c) { return has_twice(c, name); },
                  {in_every_layer(name)}};
    defect.more = [name](const Config& c, const Symptom&) { return in_one_layer(name, c); };
    all.push_back(std::move(defect));
  }
  return all;
}

Defect other_weights_defect(const Model& other, const Config& config) {
  constexpr Index most = 16;  // layers that are tried one by one
  const auto others = std::make_shared<Parameters>();
  for_each_tensor(other.weights, other.config,
                  [&](Name name, const Parameter& p, const std::vector<Index>&) {
                    if (p.present()) (*others)[name] = p;
                  });
  const auto kept = std::make_shared<const Model>(other);  // whose memory the parameters borrow
  Defect defect{115,
                "weights-of-another-checkpoint",
                "One projection has the weights of the other checkpoint: an adapter that is not "
                "applied, is merged, or an older release.",
                issue("vllm-project/vllm", 48974),
                "",
                any_model,
                {}};
  const auto add = [&](DefectVariant variant) {
    variant.apply = [kept, apply = std::move(variant.apply)](Variant& altered) { apply(altered); };
    defect.variants.push_back(std::move(variant));
  };
  for (const Module& module : modules) {
    add(taken_from(others, module.name, -1));
    for (Index l = 0; l < std::min(config.num_hidden_layers, most); ++l)
      add(taken_from(others, module.name, l));
  }
  return defect;
}

}  // namespace dsa::verify
