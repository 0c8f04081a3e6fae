// core/config.hpp — the hyper-parameters, and the glossary of axis letters.
//
// Every shape in this repository is written with these letters and no others:
//   T queries            S keys                C hidden_size          V vocab_size
//   L num_hidden_layers  N num_attention_heads R kv_lora_rank         A q_lora_rank
//   P qk_rope_head_dim   B qk_nope_head_dim    U v_head_dim
//   H index_n_heads      D index_head_dim      K index_topk
//   E n_routed_experts   G n_group             F width of a feed-forward network
// Fields are named as config.json of the checkpoint names them.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "core/json_fwd.hpp"

namespace dsa {

/// Which two channels one rotation turns: (2i, 2i+1), or (i, i + P/2).
enum class RopeLayout { interleaved, half };

/// Frequencies of the rotary embedding (`rope_parameters`; older configs: `rope_scaling`).
struct Rope {
  double theta = 10000;
  bool yarn = false;  // rope_type "yarn"; otherwise "default"
  double factor = 1;
  double original_max_position_embeddings = 0;
  double beta_fast = 32, beta_slow = 1;
  double mscale = 0, mscale_all_dim = 0;  // 0: not given
  std::optional<double> attention_factor;
  bool truncate = true;
};

/// How a router turns logits into experts and weights.
struct Router {
  enum class Scoring { sigmoid, softmax };
  /// none: all experts compete. sum_of_two / maximum: the best `topk_group` of `n_group` groups
  /// are kept, a group's score being the sum of its two best, or its best.
  enum class Groups { none, sum_of_two, maximum };
  Scoring scoring = Scoring::sigmoid;
  Groups groups = Groups::none;
  bool has_correction_bias = false;  // e_score_correction_bias takes part in the choice only
  double dropped_group_score = 0;    // what experts of dropped groups score: -infinity, or 0
  bool norm_topk_prob = false;
};

/// The lightning indexer, described by data. A family is one value of this struct.
struct Indexer {
  enum class QuerySource { q_latent, hidden };  // wq_b reads c_q after its norm, or x
  enum class KeyNorm { layer_norm, rms_norm, none };
  enum class Activation { relu, none };
  enum class HeadWeights { projected, uniform };  // weights_proj x, or 1
  enum class Unit { token, block };               // what is selected

  Index n_heads = 0;   // H, index_n_heads
  Index head_dim = 0;  // D, index_head_dim
  Index topk = 0;      // K, index_topk
  QuerySource query_source = QuerySource::q_latent;
  KeyNorm key_norm = KeyNorm::layer_norm;
  double key_norm_eps = 1e-6;
  bool rope_first = true;  // the rotary channels are the first P of D, otherwise the last
  RopeLayout rope_layout = RopeLayout::half;
  Activation activation = Activation::relu;
  HeadWeights head_weights = HeadWeights::projected;
  double dot_scale = 1;     // multiplies q.k inside the activation: D^-1/2
  double weight_scale = 1;  // multiplies the head weights: H^-1/2
  Unit unit = Unit::token;
  std::vector<bool> computes;  // per layer: runs its own indexer, or reuses the last one that did
};

struct Config {
  std::string model_type;
  Index vocab_size = 0, hidden_size = 0, intermediate_size = 0, moe_intermediate_size = 0;
  Index num_hidden_layers = 0, num_attention_heads = 0;
  std::optional<Index> q_lora_rank;  // null: q_proj instead of q_a_proj, q_a_layernorm, q_b_proj
  Index kv_lora_rank = 0, qk_rope_head_dim = 0, qk_nope_head_dim = 0, v_head_dim = 0;
  double rms_norm_eps = 1e-6;
  double latent_norm_eps = 1e-6;  // q_a_layernorm and kv_a_layernorm: HuggingFace's class default
  bool attention_bias = false, mlp_bias = false, tie_word_embeddings = false;
  Index max_position_embeddings = 0;
  Rope rope;
  RopeLayout rope_layout = RopeLayout::interleaved;  // of MLA; `rope_interleave`
  Index n_routed_experts = 0, n_shared_experts = 0, num_experts_per_tok = 0;
  Index n_group = 1, topk_group = 1;
  double routed_scaling_factor = 1;
  Router router;
  std::vector<bool> is_moe;  // per layer, L entries: mixture of experts, or one dense network
  std::optional<Indexer> indexer;
  bool use_sparse_attention = true;
  Index num_nextn_predict_layers = 0;  // multi-token-prediction blocks after the L layers
  Dtype dtype = Dtype::bf16;           // `dtype` / `torch_dtype`: what the model is meant to run in
  std::optional<Index> fp8_block;      // edge of a `weight_scale_inv` block: 128
  bool fp8_scale_ue8m0 = false;        // scales are powers of two (scale_fmt "ue8m0")
  std::vector<std::string> unused_keys;  // of config.json, that nothing here depends on

  Index qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }

  /// The softmax scale: (B+P)^-1/2, times m(factor, mscale_all_dim)^2 under YaRN.
  double attention_scale() const;
};

/// From the object in config.json. A missing, contradictory or unsupported key is an Error that
/// names it, what was expected and what was found; so is a key that is known to change the forward
/// pass of other models. `what` begins the sentence.
Config parse_config(const Json&, const std::string& what);

/// A config file, or that of a directory: DIR/config.json. Error, too: a file beside it says that
/// the weights are in a format that cannot be read exactly (hf_quant_config.json: NVFP4, ...).
Config read_config(const std::filesystem::path&);

}  // namespace dsa
