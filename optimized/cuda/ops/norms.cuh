// optimized/cuda/ops/norms.cuh — definition: reference/ops/norms.hpp. Sums in fp32; Y: float or
// bf16.
#pragma once

#include <string>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

namespace v1 {  // one block a row, which is read once for every sum and once for the answer
template <class Y>
void rmsnorm(Stream, DeviceView<Y, 2> y,    // (T, C)  out
             DeviceView<const float, 2> x,  // (T, C)
             DeviceView<const float, 1> g,  // (C)
             double eps);
template <class Y>
void layernorm(Stream, DeviceView<Y, 2> y,    // (T, C)  out
               DeviceView<const float, 2> x,  // (T, C)
               DeviceView<const float, 1> g,  // (C)
               DeviceView<const float, 1> b,  // (C)
               double eps);
}  // namespace v1

namespace v2 {  // one block a row, which is read once, four numbers at a time, into registers
/// Why a shape is not taken; empty where it is.
std::string norm_refuses(Index C);
template <class Y>
void rmsnorm(Stream, DeviceView<Y, 2> y, DeviceView<const float, 2> x, DeviceView<const float, 1> g,
             double eps);
template <class Y>
void layernorm(Stream, DeviceView<Y, 2> y, DeviceView<const float, 2> x,
               DeviceView<const float, 1> g, DeviceView<const float, 1> b, double eps);
}  // namespace v2

template <class Y>
void rmsnorm(Stream, DeviceView<Y, 2> y, DeviceView<const float, 2> x, DeviceView<const float, 1> g,
             double eps);
template <class Y>
void layernorm(Stream, DeviceView<Y, 2> y, DeviceView<const float, 2> x,
               DeviceView<const float, 1> g, DeviceView<const float, 1> b, double eps);

}  // namespace dsa::cuda::DSA_PLACE
