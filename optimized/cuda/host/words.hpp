// optimized/cuda/host/words.hpp — CUDA's words, where a kernel runs on the host.
#pragma once

#include <cstdint>

#include "optimized/cuda/host/block.hpp"
#include "optimized/cuda/host/global_memory.hpp"

#define __host__
#define __device__
#define __global__
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline

namespace dsa::cuda::host {

/// Kernels have finished when launch() returns: there is one stream, and nothing to it.
struct Stream {};

inline void check_subscript(std::int64_t i, std::int64_t extent, int axis) {
  if (i < 0 || i >= extent)
    fail("subscript " + std::to_string(i) + " of axis " + std::to_string(axis) + ", which has " +
         std::to_string(extent));
}

inline void __syncthreads(int line = __builtin_LINE()) { block_barrier(line); }

}  // namespace dsa::cuda::host
