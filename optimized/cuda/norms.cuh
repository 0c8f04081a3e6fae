// optimized/cuda/norms.cuh — definition: reference/norms.hpp. Sums in fp32; Y: float or bf16.
#pragma once

#include "optimized/cuda/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

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

}  // namespace dsa::cuda::DSA_PLACE
