// core/weights.hpp — every parameter of the model, once.
//
// A Parameter borrows bytes from a checkpoint and says how to read them; nothing is decoded until
// somebody asks for rows. A whole 671B model is therefore a few megabytes of Parameters.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "core/dtype.hpp"
#include "core/file.hpp"

namespace dsa {

/// One parameter as it lies in memory or on disk. Shape (n) or (rows, columns).
struct Parameter {
  std::string name;  // of the tensor in the checkpoint
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape;
  const std::byte* data = nullptr;
  const float* scale_inv = nullptr;  // one per block x block of an F8_E4M3 matrix
  Index block = 128;
  Index scale_row = 0;             // of this matrix's first row, within a packed tensor's blocks
  bool seen_finite = false;        // every value was looked at when it was decoded to F64
  std::optional<Dtype> loaded_as;  // an emulated run's dtype: read_rows rounds to it

  bool quantised() const { return dtype == Dtype::f8_e4m3; }
  bool present() const { return data != nullptr; }
  Index rows() const { return shape.empty() ? 0 : shape[0]; }
  Index columns() const { return shape.size() < 2 ? 1 : shape[1]; }
};

/// Rows [begin, end) as numbers: W = W8 * scale_inv for FP8, exact for the other formats; then
/// rounded to `loaded_as` where that is set.
/// A NaN or an infinity is an Error naming the tensor and where it is.
template <class Real>
void read_rows(const Parameter&, Index begin, Index end, Real* out);

/// The whole of a vector, or of a small matrix, row-major.
template <class Real>
std::vector<Real> read_all(const Parameter&);

// The structs below are templates on the leaf: a Parameter of a checkpoint, or a Tensor of its
// shape (a gradient, a moment of AdamW).

/// y = W x + b. The bias is absent unless the config says otherwise.
template <class Leaf>
struct LinearOf {
  Leaf weight;  // (out, in)
  Leaf bias;    // (out)
};

template <class Leaf>
struct AttentionOf {
  LinearOf<Leaf> q_proj;              // (N*(B+P), C)  only where q_lora_rank is null
  LinearOf<Leaf> q_a_proj;            // (A, C)
  Leaf q_a_layernorm;                 // (A)
  LinearOf<Leaf> q_b_proj;            // (N*(B+P), A)
  LinearOf<Leaf> kv_a_proj_with_mqa;  // (R+P, C)
  Leaf kv_a_layernorm;                // (R)
  LinearOf<Leaf> kv_b_proj;           // (N*(B+U), R)
  LinearOf<Leaf> o_proj;              // (C, N*U)
};

template <class Leaf>
struct IndexerWeightsOf {
  LinearOf<Leaf> wq_b;          // (H*D, A)   or (H*D, C) where the query comes from x
  LinearOf<Leaf> wk;            // (D, C)
  Leaf k_norm;                  // (D)
  Leaf k_norm_bias;             // (D)        LayerNorm only
  LinearOf<Leaf> weights_proj;  // (H, C)
};

template <class Leaf>
struct MlpOf {
  LinearOf<Leaf> gate_proj, up_proj;  // (F, C)
  LinearOf<Leaf> down_proj;           // (C, F)
};

template <class Leaf>
struct MoeOf {
  LinearOf<Leaf> gate;               // (E, C)
  Leaf e_score_correction_bias;      // (E)
  std::vector<MlpOf<Leaf>> experts;  // E; per expert whether stored so or packed
  MlpOf<Leaf> shared_experts;
};

template <class Leaf>
struct LayerOf {
  Leaf input_layernorm, post_attention_layernorm;  // (C)
  AttentionOf<Leaf> self_attn;
  IndexerWeightsOf<Leaf> indexer;  // where config.indexer->computes[l]
  MlpOf<Leaf> mlp;                 // a dense layer
  MoeOf<Leaf> moe;                 // a mixture-of-experts layer
};

/// One multi-token-prediction block (layer L, L+1, ... of the checkpoint).
template <class Leaf>
struct MtpOf {
  Leaf enorm, hnorm;       // (C)
  LinearOf<Leaf> eh_proj;  // (C, 2C)
  LayerOf<Leaf> block;
  Leaf shared_head_norm;  // (C)
  // The main model's, unless the block was trained with its own.
  bool owns_embedding = false, owns_head = false;
  Leaf embed_tokens;           // (V, C)
  LinearOf<Leaf> shared_head;  // (V, C)
};

template <class Leaf>
struct WeightsOf {
  Leaf embed_tokens;  // (V, C)
  std::vector<LayerOf<Leaf>> layers;
  Leaf norm;                     // (C)
  LinearOf<Leaf> lm_head;        // (V, C); embed_tokens itself where the embeddings are tied
  std::vector<MtpOf<Leaf>> mtp;  // empty where the checkpoint leaves them out
};

/// Weights as they lie in a checkpoint.
using Linear = LinearOf<Parameter>;
using Attention = AttentionOf<Parameter>;
using IndexerWeights = IndexerWeightsOf<Parameter>;
using Mlp = MlpOf<Parameter>;
using Moe = MoeOf<Parameter>;
using Layer = LayerOf<Parameter>;
using Mtp = MtpOf<Parameter>;
using Weights = WeightsOf<Parameter>;

/// Config, weights, and whatever memory the weights borrow from.
struct Model {
  Config config;
  Weights weights;
  std::shared_ptr<const void> memory;
  std::vector<std::shared_ptr<const MappedFile>> files = {};  // of that memory, those mapped
};

/// Room for every parameter of the config; no leaf has a value yet.
template <class Leaf = Parameter>
WeightsOf<Leaf> empty_weights(const Config& c) {
  const auto room = [&](LayerOf<Leaf>& layer, bool is_moe) {
    if (is_moe) layer.moe.experts.resize(static_cast<std::size_t>(c.n_routed_experts));
  };
  WeightsOf<Leaf> w;
  w.layers.resize(static_cast<std::size_t>(c.num_hidden_layers));
  for (std::size_t l = 0; l < w.layers.size(); ++l) room(w.layers[l], c.is_moe[l]);
  w.mtp.resize(static_cast<std::size_t>(c.num_nextn_predict_layers));
  for (MtpOf<Leaf>& mtp : w.mtp) room(mtp.block, c.n_routed_experts > 0);
  return w;
}

/// Parameters that are others under a second name: the head of tied embeddings, and the embeddings and
/// heads of multi-token-prediction blocks that own none.
void tie_weights(Weights&, const Config&);

/// The only list of parameters in the repository: calls f(name, parameter, shape) for every one
/// that the config promises, experts one by one, MTP blocks last. `w` is (const) WeightsOf<Leaf> of
/// the config's size.
template <class W, class F>
void for_each_tensor(W& w, const Config& c, F&& f) {
  using Shape = std::vector<Index>;
  const Index N = c.num_attention_heads, C = c.hidden_size, R = c.kv_lora_rank,
              P = c.qk_rope_head_dim, B = c.qk_nope_head_dim, U = c.v_head_dim;

  const auto linear = [&](const std::string& name, auto& x, Index out, Index in, bool bias) {
    f(name + ".weight", x.weight, Shape{out, in});
    if (bias) f(name + ".bias", x.bias, Shape{out});
  };
  const auto mlp = [&](const std::string& at, auto& x, Index width, bool bias) {
    linear(at + "gate_proj", x.gate_proj, width, C, bias);
    linear(at + "up_proj", x.up_proj, width, C, bias);
    linear(at + "down_proj", x.down_proj, C, width, bias);
  };
  const auto attention = [&](const std::string& at, auto& x) {
    if (c.q_lora_rank) {
      const Index A = *c.q_lora_rank;
      linear(at + "q_a_proj", x.q_a_proj, A, C, c.attention_bias);
      f(at + "q_a_layernorm.weight", x.q_a_layernorm, Shape{A});
      linear(at + "q_b_proj", x.q_b_proj, N * (B + P), A, false);
    } else {
      linear(at + "q_proj", x.q_proj, N * (B + P), C, false);
    }
    linear(at + "kv_a_proj_with_mqa", x.kv_a_proj_with_mqa, R + P, C, c.attention_bias);
    f(at + "kv_a_layernorm.weight", x.kv_a_layernorm, Shape{R});
    linear(at + "kv_b_proj", x.kv_b_proj, N * (B + U), R, false);
    linear(at + "o_proj", x.o_proj, C, N * U, c.attention_bias);
  };
  const auto indexer = [&](const std::string& at, auto& x, const Indexer& i) {
    const bool from_latent = i.query_source == Indexer::QuerySource::q_latent;
    linear(at + "wq_b", x.wq_b, i.n_heads * i.head_dim, from_latent ? *c.q_lora_rank : C, false);
    linear(at + "wk", x.wk, i.head_dim, C, false);
    if (i.key_norm != Indexer::KeyNorm::none) f(at + "k_norm.weight", x.k_norm, Shape{i.head_dim});
    if (i.key_norm == Indexer::KeyNorm::layer_norm)
      f(at + "k_norm.bias", x.k_norm_bias, Shape{i.head_dim});
    if (i.head_weights == Indexer::HeadWeights::projected)
      linear(at + "weights_proj", x.weights_proj, i.n_heads, C, false);
  };
  const auto block = [&](Index l, auto& x, bool computes_index, bool is_moe) {
    const std::string at = "model.layers." + std::to_string(l) + ".";
    f(at + "input_layernorm.weight", x.input_layernorm, Shape{C});
    attention(at + "self_attn.", x.self_attn);
    if (computes_index) indexer(at + "self_attn.indexer.", x.indexer, *c.indexer);
    f(at + "post_attention_layernorm.weight", x.post_attention_layernorm, Shape{C});
    if (!is_moe) return mlp(at + "mlp.", x.mlp, c.intermediate_size, c.mlp_bias);
    linear(at + "mlp.gate", x.moe.gate, c.n_routed_experts, C, false);
    if (c.router.has_correction_bias)
      f(at + "mlp.gate.e_score_correction_bias", x.moe.e_score_correction_bias,
        Shape{c.n_routed_experts});
    for (std::size_t e = 0; e < x.moe.experts.size(); ++e)
      mlp(at + "mlp.experts." + std::to_string(e) + ".", x.moe.experts[e], c.moe_intermediate_size,
          false);
    if (c.n_shared_experts > 0)
      mlp(at + "mlp.shared_experts.", x.moe.shared_experts,
          c.n_shared_experts * c.moe_intermediate_size, c.mlp_bias);
  };

  f("model.embed_tokens.weight", w.embed_tokens, Shape{c.vocab_size, C});
  for (Index l = 0; l < c.num_hidden_layers; ++l) {
    const auto i = static_cast<std::size_t>(l);
    block(l, w.layers[i], c.indexer && c.indexer->computes[i], c.is_moe[i]);
  }
  f("model.norm.weight", w.norm, Shape{C});
  if (!c.tie_word_embeddings) linear("lm_head", w.lm_head, c.vocab_size, C, false);

  for (std::size_t i = 0; i < w.mtp.size(); ++i) {
    const Index l = c.num_hidden_layers + static_cast<Index>(i);
    const std::string at = "model.layers." + std::to_string(l) + ".";
    f(at + "enorm.weight", w.mtp[i].enorm, Shape{C});
    f(at + "hnorm.weight", w.mtp[i].hnorm, Shape{C});
    linear(at + "eh_proj", w.mtp[i].eh_proj, C, 2 * C, false);
    block(l, w.mtp[i].block, c.indexer.has_value(), c.n_routed_experts > 0);
    f(at + "shared_head.norm.weight", w.mtp[i].shared_head_norm, Shape{C});
    if (w.mtp[i].owns_embedding)
      f(at + "embed_tokens.weight", w.mtp[i].embed_tokens, Shape{c.vocab_size, C});
    if (w.mtp[i].owns_head)
      linear(at + "shared_head.head", w.mtp[i].shared_head, c.vocab_size, C, false);
  }
}

}  // namespace dsa
