// reference/precision/official_fp8.hpp — the roundings of DeepSeek's own serving code, V3.2.
//
// DeepSeek-V3.2-Exp inference/model.py and kernel.py after commit 8631a81. What differs from
// HuggingFace in bf16:
//   - a linear whose weight is stored in FP8 quantises its input too, per token and 128 channels;
//   - RMSNorm multiplies its gain in fp32 before the store, not after it;
//   - the indexer's q and k are rotated by a Hadamard matrix (bf16 in and out) and quantised to
//     e4m3, one scale a row and head; scores = k_scale * sum_h relu(q8.k8) * w * q_scale * D^-1/2;
//   - the cached latent goes through an FP8 round trip, 128 channels a scale; k_rope does not;
//   - experts and the head accumulate in fp32.
#pragma once

#include "reference/precision/rounder.hpp"

namespace dsa::reference {

Ops<double> official_fp8_ops(const Rounded&, const Config&);

/// Every row of x, in runs of `block` channels, becomes e4m3 numbers times a scale of its own:
/// amax/448 with amax >= 1e-4; `ue8m0` rounds the scale up to a power of two (kernel.py,
/// act_quant). On return x holds the e4m3 numbers and `scales` (rows, ceil(width/block)) the rest.
void quantise_e4m3(View<double, 2> x, View<double, 2> scales, Index block, bool ue8m0);

}  // namespace dsa::reference
