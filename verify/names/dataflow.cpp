#include "verify/names/dataflow.hpp"

#include <map>

#include "verify/runs/reference_run.hpp"

namespace dsa::verify {
namespace {

/// Within a block. "<": the block's input. A gated network has the same three matrices everywhere.
const std::map<std::string, std::vector<std::string>> within_block = {
    {"input_layernorm", {"<"}},
    {"self_attn.q_a_proj", {"input_layernorm"}},
    {"self_attn.q_a_layernorm", {"self_attn.q_a_proj"}},
    {"self_attn.q_b_proj", {"self_attn.q_a_layernorm"}},
    {"self_attn.q_proj", {"input_layernorm"}},
    {"self_attn.q_rope", {"self_attn.q_b_proj", "self_attn.q_proj"}},
    {"self_attn.kv_a_proj_with_mqa", {"input_layernorm"}},
    {"self_attn.kv_a_layernorm", {"self_attn.kv_a_proj_with_mqa"}},
    {"self_attn.k_rope", {"self_attn.kv_a_proj_with_mqa"}},
    {"self_attn.indexer.q", {"self_attn.indexer.wq_b"}},
    {"self_attn.indexer.wk", {"input_layernorm"}},
    {"self_attn.indexer.k_norm", {"self_attn.indexer.wk"}},
    {"self_attn.indexer.k", {"self_attn.indexer.k_norm"}},
    {"self_attn.indexer.weights_proj", {"input_layernorm"}},
    {"self_attn.indexer.scores",
     {"self_attn.indexer.q", "self_attn.indexer.k", "self_attn.indexer.weights_proj"}},
    {"self_attn.indexer", {"self_attn.indexer.scores"}},
    {"self_attn.kv_b_proj", {"self_attn.kv_a_layernorm"}},
    {"self_attn.o_proj", {"self_attn.heads"}},
    {"self_attn", {"self_attn.o_proj"}},
    {"attention_residual", {"<", "self_attn"}},
    {"post_attention_layernorm", {"attention_residual"}},
    {"mlp.gate.logits", {"post_attention_layernorm"}},
    {"mlp.gate.choice", {"mlp.gate.logits"}},
    {"mlp.gate.group_scores", {"mlp.gate.choice"}},
    {"mlp.gate.groups", {"mlp.gate.group_scores"}},
    {"mlp.gate.experts", {"mlp.gate.choice", "mlp.gate.groups"}},
    {"mlp.gate.weights", {"mlp.gate.logits", "mlp.gate.experts"}},
    {"mlp.experts", {"post_attention_layernorm", "mlp.gate.experts", "mlp.gate.weights"}},
    {"mlp.shared_experts", {"mlp.shared_experts.down_proj"}},
    {"mlp", {"mlp.down_proj", "mlp.experts", "mlp.shared_experts"}},
};

std::vector<std::string> inputs_in_block(const std::string& rest, const Config& config, Index l,
                                         const std::string& layer) {
  if (rest == "self_attn.heads") {
    const std::string at = layer + "self_attn.";
    std::vector<std::string> inputs = {at + "q_b_proj", at + "q_proj", at + "q_rope",
                                       at + "kv_b_proj", at + "k_rope"};
    if (config.indexer && config.use_sparse_attention)
      inputs.push_back("model.layers." + std::to_string(selecting_layer(config, l)) +
                       ".self_attn.indexer");
    return inputs;
  }
  if (rest == "self_attn.indexer.wq_b") {
    const bool latent = config.indexer->query_source == Indexer::QuerySource::q_latent;
    return {layer + (latent ? "self_attn.q_a_layernorm" : "input_layernorm")};
  }
  for (const std::string network : {"mlp.", "mlp.shared_experts."}) {
    if (rest == network + "gate_proj" || rest == network + "up_proj")
      return {layer + "post_attention_layernorm"};
    if (rest == network + "down_proj")
      return {layer + network + "gate_proj", layer + network + "up_proj"};
  }
  const auto found = within_block.find(rest);
  if (found == within_block.end()) return {};
  std::vector<std::string> inputs;
  for (const std::string& input : found->second)
    inputs.push_back(input != "<" ? layer + input
                     : l == 0     ? "model.embed_tokens"
                                  : "model.layers." + std::to_string(l - 1));
  return inputs;
}

}  // namespace

Index selecting_layer(const Config& config, Index l) {
  while (config.indexer && l > 0 && !config.indexer->computes[static_cast<std::size_t>(l)]) --l;
  return l;
}

bool is_traced(const std::string& name) {
  if (name == "model.embed_tokens" || name == "model.norm" || name == "lm_head") return true;
  const Index l = layer_of(name);
  if (l < 0) return false;
  const std::string block = "model.layers." + std::to_string(l);
  if (name == block) return true;
  if (!name.starts_with(block + ".")) return false;
  const std::string rest = name.substr(block.size() + 1);
  if (rest == "self_attn.heads" || rest == "self_attn.indexer.wq_b") return true;
  for (const std::string network : {"mlp.", "mlp.shared_experts."})
    for (const std::string matrix : {"gate_proj", "up_proj", "down_proj"})
      if (rest == network + matrix) return true;
  return within_block.contains(rest);
}

std::vector<std::string> inputs_of(const std::string& name, const Config& config) {
  if (name == "lm_head") return {"model.norm"};
  if (name == "model.norm") return {"model.layers." + std::to_string(config.num_hidden_layers - 1)};
  const Index l = layer_of(name);
  if (l < 0) return {};
  const std::string block = "model.layers." + std::to_string(l);
  if (name == block) return {block + ".attention_residual", block + ".mlp"};
  return inputs_in_block(name.substr(block.size() + 1), config, l, block + ".");
}

}  // namespace dsa::verify
