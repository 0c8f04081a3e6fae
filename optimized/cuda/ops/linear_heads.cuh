// optimized/cuda/ops/linear_heads.cuh — a matrix of its own for every head:
//
//   y[t,n,f] = sum_c w[n,f,c] x[t,n,c]
//
// MLA in absorbed form: W_UK, transposed, before attention, and W_UV after it. Sums in fp32.
#pragma once

#include <string>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

// X: float or bf16. A head of x may have more channels than the matrices take: the first C count.

namespace v1 {  // one thread an output
template <class X>
void linear_heads(Stream, DeviceView<float, 3> y,  // (T, N, F)  out
                  DeviceView<const X, 3> x,        // (T, N, C or more)
                  DeviceView<const X, 3> w);       // (N, F, C)
}  // namespace v1

namespace v2 {  // tiles of 64 x 64 outputs of a head (product_tile.cuh)
/// Why a shape is not taken; empty where it is. width: channels of a head of x.
std::string linear_heads_refuses(Index width, Index C, Index bytes_per_element);
template <class X>
void linear_heads(Stream, DeviceView<float, 3> y, DeviceView<const X, 3> x,
                  DeviceView<const X, 3> w);
}  // namespace v2

template <class X>
void linear_heads(Stream, DeviceView<float, 3> y, DeviceView<const X, 3> x,
                  DeviceView<const X, 3> w);

}  // namespace dsa::cuda::DSA_PLACE
