// optimized/cuda/model/model.cuh — a checkpoint on the device, wholly, in one piece of memory.
//
// Differences from core/weights.hpp: gate and up lie in one matrix, and the experts of a layer in
// one; kv_b_proj is cut into W_UK, transposed, and W_UV of every head, for MLA in absorbed form.
// Multi-token-prediction blocks are left out.
#pragma once

#include <vector>

#include "core/weights.hpp"
#include "optimized/cuda/device/buffer.cuh"

namespace dsa::cuda::DSA_PLACE {

using DeviceVector = DeviceView<const float, 1>;  // of no elements where there is none

/// y = W x + b. X: what matrices are multiplied with, float or bf16.
template <class X>
struct DeviceLinear {
  DeviceView<const X, 2> weight;
  DeviceVector bias;
};

template <class X>
struct DeviceAttention {
  DeviceLinear<X> q_proj;              // (N*(B+P), C)  only where q_lora_rank is null
  DeviceLinear<X> q_a_proj, q_b_proj;  // (A, C), (N*(B+P), A)
  DeviceVector q_a_layernorm;          // (A)
  DeviceLinear<X> kv_a_proj_with_mqa;  // (R+P, C)
  DeviceVector kv_a_layernorm;         // (R)
  DeviceView<const X, 3> w_uk, w_uv;   // (N, R, B), (N, U, R)
  DeviceLinear<X> o_proj;              // (C, N*U)
};

template <class X>
struct DeviceIndexer {
  DeviceView<const X, 2> wq_b, wk;          // (H*D, A or C), (D, C)
  DeviceView<const float, 2> weights_proj;  // (H, C)
  DeviceVector k_norm, k_norm_bias;         // (D)
};

/// A dense layer's network, or that of the shared experts.
template <class X>
struct DeviceMlp {
  DeviceLinear<X> gate_up, down;  // (2F, C), (C, F)
};

template <class X>
struct DeviceLayer {
  DeviceVector input_layernorm, post_attention_layernorm;  // (C)
  DeviceAttention<X> attention;
  DeviceIndexer<X> indexer;  // where config.indexer->computes[l]
  DeviceMlp<X> mlp;
  DeviceView<const float, 2> gate;                       // (E, C)
  DeviceVector e_score_correction_bias;                  // (E)
  DeviceView<const X, 3> experts_gate_up, experts_down;  // (E, 2F, C), (E, C, F)
};

template <class X>
struct DeviceModel {
  Config config;
  DeviceView<const X, 2> embed_tokens;  // (V, C)
  std::vector<DeviceLayer<X>> layers;
  DeviceVector norm;               // (C)
  DeviceView<const X, 2> lm_head;  // (V, C)
  Buffer<std::byte> memory;
};

/// Decodes every parameter once, a slab of rows at a time.
template <class X>
DeviceModel<X> load(const Model&);

/// Bytes of the device that load() will take, from the config alone.
template <class X>
Index weight_bytes(const Config&);

}  // namespace dsa::cuda::DSA_PLACE
