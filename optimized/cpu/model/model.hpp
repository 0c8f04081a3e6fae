// optimized/cpu/model/model.hpp — a checkpoint packed for the kernels of one tier, wholly in
// memory.
//
// Differences from core/weights.hpp: gate and up lie in one matrix; kv_a_proj_with_mqa is cut into
// its latent and its rotary rows; kv_b_proj into heads, W_UK twice: transposed for MLA in absorbed
// form, and below W_UV for the expanded one. Multi-token-prediction blocks are left out.
#pragma once

#include <variant>
#include <vector>

#include "core/weights.hpp"
#include "optimized/cpu/ops/experts.hpp"
#include "optimized/shared/format.hpp"
#include "optimized/shared/mla_form.hpp"

namespace dsa::cpu {

/// y = W x + b; the bias is empty where there is none.
struct PackedLinear {
  Matrix weight;
  Tensor<float, 1> bias;
};

struct PackedAttention {
  PackedLinear q_proj;                  // (N*(B+P), C)  only where q_lora_rank is null
  PackedLinear q_a_proj, q_b_proj;      // (A, C), (N*(B+P), A)
  Tensor<float, 1> q_a_layernorm;       // (A)
  PackedLinear kv_a_latent, kv_a_rope;  // (R, C), (P, C)
  Tensor<float, 1> kv_a_layernorm;      // (R)
  std::vector<Matrix> w_uk;             // of every head: W_UK^T (R, B)
  std::vector<Matrix> w_kv;             // [W_UV | 0 | W_UK] (value_rows(U) + B, R)
  PackedLinear o_proj;                  // (C, N*U)
};

struct PackedIndexer {
  PackedLinear wq_b, wk;                 // (H*D, A or C), (D, C)
  Matrix weights_proj;                   // (H, C) in f32
  Tensor<float, 1> k_norm, k_norm_bias;  // (D)
};

struct PackedLayer {
  Tensor<float, 1> input_layernorm, post_attention_layernorm;  // (C)
  PackedAttention attention;
  PackedIndexer indexer;                     // where config.indexer->computes[l]
  FeedForward mlp;                           // a dense layer's, or the shared experts'
  Matrix gate;                               // (E, C) in f32
  Tensor<float, 1> e_score_correction_bias;  // (E)
  std::vector<FeedForward> experts;
};

struct PackedModel {
  Config config;
  Format format = Format::fp32;
  Cpu cpu;
  MlaForm mla = MlaForm::automatic;
  std::variant<Tensor<float, 2>, Tensor<bf16, 2>> embed_tokens;  // (V, C), as matrices
  std::vector<PackedLayer> layers;
  Tensor<float, 1> norm;  // (C)
  Matrix lm_head;         // (V, C)

  Index bytes() const;  // of matrices and embedding
};

/// Decodes and packs every parameter once, on all threads; gives the pages of mapped files back
/// after every layer.
PackedModel pack(const Model&, Format, Cpu, MlaForm = MlaForm::automatic);

/// Bytes that pack() will take, from the config alone: numbers times their size. The rows that pad
/// a matrix to whole panels are not counted.
Index weight_bytes(const Config&, Format);

}  // namespace dsa::cpu
