// optimized/cuda/ops/swiglu.cuh — the nonlinearity of a feed-forward network. Definition:
// reference/model/ops.cpp.
#pragma once

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// h = silu(gate) * up. H: float or bf16.
template <class H>
void swiglu(Stream, DeviceView<H, 2> h,           // (T, F)   out
            DeviceView<const float, 2> gate_up);  // (T, 2F)  gate first

}  // namespace dsa::cuda::DSA_PLACE
