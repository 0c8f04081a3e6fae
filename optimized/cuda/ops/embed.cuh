// optimized/cuda/ops/embed.cuh — y[t,:] = table[tokens[t],:].
#pragma once

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// X: float or bf16. A token outside [0, V): NaN.
template <class X>
void embed(Stream, DeviceView<X, 2> y,                 // (T, C)  out
           DeviceView<const X, 2> table,               // (V, C)
           DeviceView<const std::int32_t, 1> tokens);  // (T)

}  // namespace dsa::cuda::DSA_PLACE
