// optimized/cuda/ops/linear.cuh — y = x W^T + b. Definition: reference/ops/linear.hpp. Sums in
// fp32.
#pragma once

#include <string>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// Scales of e4m3 operands: one for 128 channels of a row of x, and one for 128 x 128 of W. Empty
/// for other types.
struct Scales {
  DeviceView<const float, 2> x;  // (T, ceil(C/128))
  DeviceView<const float, 2> w;  // (ceil(F/128), ceil(C/128))
};

namespace v1 {  // one thread an output: the reference, transcribed
template <class X>
void linear(Stream, DeviceView<float, 2> y,            // (T, F)  out
            DeviceView<const X, 2> x,                  // (T, C)
            DeviceView<const X, 2> w,                  // (F, C)
            Scales, DeviceView<const float, 1> bias);  // (F), or empty
}  // namespace v1

namespace v2 {  // tiles of 64 x 64 outputs; bf16 and e4m3 on tensor cores (product_tile.cuh)
/// Why a shape is not taken; empty where it is.
std::string linear_refuses(Index C, Index bytes_per_element);
template <class X>
void linear(Stream, DeviceView<float, 2> y, DeviceView<const X, 2> x, DeviceView<const X, 2> w,
            Scales, DeviceView<const float, 1> bias);
}  // namespace v2

/// bf16 by NVIDIA's library, without a workspace. Other types gain nothing from it: in fp32 the
/// library uses CUDA cores as v2 does, or tf32. In e4m3 it uses the FP8 tensor cores, whose sums on
/// Hopper keep about 14 bits (docs/cuda.md), which exceeds the bounds of the suite.
namespace cublaslt {
/// Why a shape is not taken; empty where it is. The library is asked once for each shape.
std::string linear_refuses(Index T, Index C, Index F, bool has_bias);
void linear(Stream, DeviceView<float, 2> y, DeviceView<const bf16, 2> x,
            DeviceView<const bf16, 2> w, Scales, DeviceView<const float, 1> bias);
}  // namespace cublaslt

/// X: float, bf16 or e4m3. bf16 goes to cublaslt. A shape that cublaslt refuses goes to v2, and one
/// that v2 refuses to v1.
template <class X>
void linear(Stream, DeviceView<float, 2> y, DeviceView<const X, 2> x, DeviceView<const X, 2> w,
            Scales, DeviceView<const float, 1> bias);

}  // namespace dsa::cuda::DSA_PLACE
