// core/trace_names.hpp — the names of traced tensors and decisions: HuggingFace's module paths, and
// a few for what has no module there.
//
// reference/model traces under these names, in the order in which they stand here, and everything
// that judges, localises or breaks an op finds it by them. data/README.md has the shapes.
#pragma once

#include <string>
#include <string_view>

#include "core/tensor.hpp"

namespace dsa {
namespace names {

// Outside the layers.
inline constexpr const char embed_tokens[] = "model.embed_tokens";
inline constexpr const char norm[] = "model.norm";
inline constexpr const char lm_head[] = "lm_head";

// Within a layer: names are those of in_layer() without the layer. The block's own output is the
// layer itself, "model.layers.3".
inline constexpr const char input_layernorm[] = "input_layernorm";

inline constexpr const char q_a_proj[] = "self_attn.q_a_proj";  // with q_lora_rank, else q_proj
inline constexpr const char q_a_layernorm[] = "self_attn.q_a_layernorm";
inline constexpr const char q_b_proj[] = "self_attn.q_b_proj";
inline constexpr const char q_proj[] = "self_attn.q_proj";
inline constexpr const char q_rope[] = "self_attn.q_rope";  // rotated
inline constexpr const char kv_a_proj_with_mqa[] = "self_attn.kv_a_proj_with_mqa";
inline constexpr const char kv_a_layernorm[] = "self_attn.kv_a_layernorm";
inline constexpr const char k_rope[] = "self_attn.k_rope";  // rotated

inline constexpr const char indexer_wq_b[] = "self_attn.indexer.wq_b";
inline constexpr const char indexer_q[] = "self_attn.indexer.q";  // rotated
inline constexpr const char indexer_wk[] = "self_attn.indexer.wk";
inline constexpr const char indexer_k_norm[] = "self_attn.indexer.k_norm";
inline constexpr const char indexer_k[] = "self_attn.indexer.k";  // rotated
inline constexpr const char indexer_weights_proj[] = "self_attn.indexer.weights_proj";
inline constexpr const char indexer_scores[] = "self_attn.indexer.scores";
inline constexpr const char indexer[] = "self_attn.indexer";  // decision: the selected keys

inline constexpr const char kv_b_proj[] = "self_attn.kv_b_proj";  // of the expanded form
inline constexpr const char heads[] = "self_attn.heads";          // softmax(q k) v, before o_proj
inline constexpr const char o_proj[] = "self_attn.o_proj";
inline constexpr const char self_attn[] = "self_attn";
inline constexpr const char attention_residual[] = "attention_residual";  // x + self_attn
inline constexpr const char post_attention_layernorm[] = "post_attention_layernorm";

inline constexpr const char gate_logits[] = "mlp.gate.logits";
inline constexpr const char gate_scores[] = "mlp.gate.scores";  // of the op; not traced
inline constexpr const char gate_choice[] = "mlp.gate.choice";  // scores + correction bias
inline constexpr const char gate_group_scores[] = "mlp.gate.group_scores";
inline constexpr const char gate_groups[] = "mlp.gate.groups";    // decision: the groups kept
inline constexpr const char gate_experts[] = "mlp.gate.experts";  // decision: experts of a token
inline constexpr const char gate_weights[] = "mlp.gate.weights";  // theirs, in that order
inline constexpr const char experts[] = "mlp.experts";            // the sum over routed experts
inline constexpr const char shared_experts[] = "mlp.shared_experts";
inline constexpr const char mlp[] = "mlp";

// Within a gated network: mlp, mlp.shared_experts, mlp.experts.7.
inline constexpr const char gate_proj[] = ".gate_proj";
inline constexpr const char up_proj[] = ".up_proj";
inline constexpr const char act_fn[] = ".act_fn";  // of the op; not traced
inline constexpr const char down_proj[] = ".down_proj";

}  // namespace names

/// "model.layers.3": the output of block l.
std::string layer_name(Index l);

/// "model.layers.3.self_attn.heads"
std::string in_layer(Index l, std::string_view name);

/// 3 of "model.layers.3" and of "model.layers.3.self_attn.heads"; -1 for names outside the layers.
Index layer_of(std::string_view name);

/// "self_attn.heads" of "model.layers.3.self_attn.heads"; empty for a layer itself and for names
/// outside the layers.
std::string_view within_layer(std::string_view name);

bool is_selection(std::string_view name);     // ...self_attn.indexer: (T, K) keys
bool is_routing(std::string_view name);       // ...mlp.gate.experts, ...mlp.gate.groups
bool is_decision(std::string_view name);      // either
bool is_indexer_part(std::string_view name);  // ...self_attn.indexer, or anything of it

/// The name of another tensor of the same layer: sibling("...mlp.gate.weights",
/// names::gate_experts).
std::string sibling(std::string_view name, std::string_view other);

}  // namespace dsa
