// optimized/cuda/ops/rope.cuh — rotary position embedding. Definition: reference/ops/rope.hpp. The
// table is made on the host, in double (optimized/shared/rope_table.hpp).
#pragma once

#include "core/config.hpp"
#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// Turns channels [first, first + P) of every head, in place.
void rope(Stream, DeviceView<float, 3> x,  // (T, heads, width)  in and out
          DeviceView<const float, 2> cos,  // (T, P/2)
          DeviceView<const float, 2> sin,  // (T, P/2)
          Index first, RopeLayout);

}  // namespace dsa::cuda::DSA_PLACE
