#include "verify/names/dataflow.hpp"

#include <algorithm>
#include <map>

#include "core/trace_names.hpp"

namespace dsa::verify {
namespace {

using namespace names;

/// Stands for the block's input.
constexpr const char block_input[] = "<";

using Inputs = std::vector<std::string>;

/// The three matrices of a gated network, which has the same ones everywhere.
void add_network(std::map<std::string, Inputs>& made_from, const std::string& network) {
  made_from[network + gate_proj] = made_from[network + up_proj] = {post_attention_layernorm};
  made_from[network + down_proj] = {network + gate_proj, network + up_proj};
}

std::map<std::string, Inputs> within_a_block() {
  std::map<std::string, Inputs> made_from = {
      {input_layernorm, {block_input}},
      {q_a_proj, {input_layernorm}},
      {q_a_layernorm, {q_a_proj}},
      {q_b_proj, {q_a_layernorm}},
      {q_proj, {input_layernorm}},
      {q_rope, {q_b_proj, q_proj}},
      {kv_a_proj_with_mqa, {input_layernorm}},
      {kv_a_layernorm, {kv_a_proj_with_mqa}},
      {k_rope, {kv_a_proj_with_mqa}},
      {indexer_wq_b, {}},  // as the config says
      {indexer_q, {indexer_wq_b}},
      {indexer_wk, {input_layernorm}},
      {indexer_k_norm, {indexer_wk}},
      {indexer_k, {indexer_k_norm}},
      {indexer_weights_proj, {input_layernorm}},
      {indexer_scores, {indexer_q, indexer_k, indexer_weights_proj}},
      {indexer, {indexer_scores}},
      {kv_b_proj, {kv_a_layernorm}},
      {heads, {q_b_proj, q_proj, q_rope, kv_b_proj, k_rope}},  // and a selection
      {o_proj, {heads}},
      {self_attn, {o_proj}},
      {attention_residual, {block_input, self_attn}},
      {post_attention_layernorm, {attention_residual}},
      {gate_logits, {post_attention_layernorm}},
      {gate_choice, {gate_logits}},
      {gate_group_scores, {gate_choice}},
      {gate_groups, {gate_group_scores}},
      {gate_experts, {gate_choice, gate_groups}},
      {gate_weights, {gate_logits, gate_experts}},
      {experts, {post_attention_layernorm, gate_experts, gate_weights}},
      {shared_experts, {std::string(shared_experts) + down_proj}},
      {mlp, {std::string(mlp) + down_proj, experts, shared_experts}},
  };
  add_network(made_from, mlp);
  add_network(made_from, shared_experts);
  return made_from;
}

const std::map<std::string, Inputs> within_block = within_a_block();

Inputs inputs_in_block(const std::string& rest, const Config& config, Index l) {
  const auto found = within_block.find(rest);
  if (found == within_block.end()) return {};
  if (rest == indexer_wq_b) {
    const bool latent = config.indexer->query_source == Indexer::QuerySource::q_latent;
    return {in_layer(l, latent ? q_a_layernorm : input_layernorm)};
  }
  Inputs inputs;
  for (const std::string& input : found->second)
    inputs.push_back(input != block_input ? in_layer(l, input)
                     : l == 0             ? std::string(embed_tokens)
                                          : layer_name(l - 1));
  if (rest == heads && config.indexer && config.use_sparse_attention)
    inputs.push_back(in_layer(selecting_layer(config, l), indexer));
  return inputs;
}

}  // namespace

Index selecting_layer(const Config& config, Index l) {
  while (config.indexer && l > 0 && !config.indexer->computes[static_cast<std::size_t>(l)]) --l;
  return l;
}

std::vector<std::string> traced_within_layer() {
  std::vector<std::string> all;
  for (const auto& [name, inputs] : within_block) all.push_back(name);
  return all;
}

bool is_traced(const std::string& name) {
  if (name == embed_tokens || name == norm || name == lm_head) return true;
  const Index l = layer_of(name);
  return l >= 0 &&
         (name == layer_name(l) || within_block.contains(std::string(within_layer(name))));
}

std::vector<std::string> inputs_of(const std::string& name, const Config& config) {
  if (name == lm_head) return {norm};
  if (name == norm) return {layer_name(config.num_hidden_layers - 1)};
  const Index l = layer_of(name);
  if (l < 0) return {};
  if (name == layer_name(l)) return {in_layer(l, attention_residual), in_layer(l, mlp)};
  return inputs_in_block(std::string(within_layer(name)), config, l);
}

}  // namespace dsa::verify
