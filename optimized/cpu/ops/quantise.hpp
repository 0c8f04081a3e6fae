// optimized/cpu/ops/quantise.hpp — narrowing, and the two FP8 rows of rows.hpp.
//
// The official serving pipeline (DeepSeek-V3.2-Exp inference/model.py and kernel.py; definition:
// reference/precision/official_fp8.hpp, reference/ops/hadamard.hpp): the indexer's q and k are
// rotated by a Hadamard matrix (bf16 in and out), then quantised to e4m3, one scale a row and head:
// amax/448 with amax >= 1e-4, rounded up to a power of two under ue8m0.
#pragma once

#include "optimized/cpu/ops/tier.hpp"
#include "optimized/shared/rows.hpp"

namespace dsa::cpu {

/// To nearest, ties to even.
void to_bf16(Cpu, View<bf16, 2> y, View<const float, 2> x);

/// q8 (rows, D) and scale (rows) of a rotated q. x is rounded to bf16 first, as the rotation's
/// input is bf16. D is a power of two up to 1024 (Error).
void hadamard_e4m3(Cpu, View<e4m3, 2> y,    // (rows, D)  out
                   View<float, 1> scale,    // (rows)     out
                   View<const float, 2> x,  // (rows, D)
                   bool ue8m0);

/// The same, as index keys: rows of fp8_index_bytes(D).
void hadamard_e4m3_rows(Cpu, View<e4m3, 2> y, View<const float, 2> x, bool ue8m0);

/// x becomes what e4m3 numbers and a scale a row keep of bf16(x), rotated first or not. Error as
/// above where it is.
void through_e4m3(Cpu, View<float, 2> x, bool rotated, bool ue8m0);

/// x becomes bf16(x).
void through_bf16(View<float, 2> x);

/// [c_kv | k_rope] (T, R+P) as latent rows of fp8_latent_bytes(R, P).
void latent_e4m3_rows(Cpu, View<e4m3, 2> y, View<const float, 2> x, Index R, bool ue8m0);

}  // namespace dsa::cpu
