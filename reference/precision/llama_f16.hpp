// reference/precision/llama_f16.hpp — the roundings of llama.cpp on a CPU: fp32 weights, f16
// caches.
//
// ggml-org/llama.cpp src/models/deepseek32.cpp, ggml/src/ggml-cpu/ops.cpp. What differs from
// HuggingFace in float32:
//   - latent, rotated key and index key are stored in f16 (llama_kv_cache::cpy_k); the index key is
//     rotated by a Hadamard matrix before, where its size has one;
//   - a dot product with an f16 row takes the other row in f16 too (ggml_vec_dot_f16, through
//     ggml_mul_mat or flash attention); only ggml_compute_forward_flash_attn_ext_tiled and
//     ggml_compute_forward_lightning_indexer, of later versions and long prompts, keep it in f32;
//   - ggml_compute_forward_flash_attn_ext_f16_one_chunk sums p.v in f16 (VKQ16, ggml_vec_mad_f16);
//   - ggml_rope_cache_init gets the next angle from the last by a product with theta^(-2/P).
// The kernel depends on version, machine and prompt: the larger roundings are taken. llama.cpp
// absorbs kv_b_proj into the query: q.W_UK and the sum of latents are what is rounded to f16. Here
// q_nope and the sum of values are, whose relative errors are of the same size.
#pragma once

#include "reference/precision/rounder.hpp"

namespace dsa::reference {

Ops<double> llama_f16_ops(const Rounded&);

}  // namespace dsa::reference
