// optimized/cuda/device/silu.cuh — silu(gate) * up, for one hidden number.
#pragma once

#include "optimized/cuda/device/place.cuh"

namespace dsa::cuda::DSA_PLACE {

__device__ inline float silu_times(float gate, float up) { return gate / (1 + expf(-gate)) * up; }

}  // namespace dsa::cuda::DSA_PLACE
