// optimized/cuda/ops/quantise.cuh — the two FP8 rows of optimized/shared/rows.hpp, as DeepSeek's
// serving code makes them (definition: reference/precision/official_fp8.hpp,
// reference/ops/hadamard.hpp).
//
// scale = amax/448 with amax >= 1e-4, rounded up to a power of two under ue8m0.
#pragma once

#include <string>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

namespace v1 {  // one block a row
/// Rows rotated by a Hadamard matrix, bf16 in and out, then quantised. D is a power of two (Error).
void hadamard_e4m3(Stream, DeviceView<e4m3, 2> y,  // (rows, D)  out
                   DeviceView<float, 1> scale,     // (rows)     out
                   DeviceView<const float, 2> x,   // (rows, D)
                   bool ue8m0);
/// The same, as index keys: rows of D + 4 bytes, the scale behind the numbers.
void hadamard_e4m3_rows(Stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, bool ue8m0);
/// [c_kv | k_rope] (T, R+P) as latent rows.
void latent_e4m3_rows(Stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, Index R,
                      bool ue8m0);
}  // namespace v1

namespace v2 {  // one warp a row, four numbers a lane
/// Why a shape is not taken; empty where it is.
std::string hadamard_refuses(Index D);
std::string latent_refuses(Index R, Index P);
void hadamard_e4m3(Stream, DeviceView<e4m3, 2> y, DeviceView<float, 1> scale,
                   DeviceView<const float, 2> x, bool ue8m0);
void hadamard_e4m3_rows(Stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, bool ue8m0);
void latent_e4m3_rows(Stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, Index R,
                      bool ue8m0);
}  // namespace v2

void hadamard_e4m3(Stream, DeviceView<e4m3, 2> y, DeviceView<float, 1> scale,
                   DeviceView<const float, 2> x, bool ue8m0);
void hadamard_e4m3_rows(Stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, bool ue8m0);
void latent_e4m3_rows(Stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, Index R,
                      bool ue8m0);

}  // namespace dsa::cuda::DSA_PLACE
