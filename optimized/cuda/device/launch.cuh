// optimized/cuda/device/launch.cuh — the one place where a kernel is launched.
#pragma once

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// Bytes of shared memory for an array of n elements: SharedMemory::take() begins each array at a
/// multiple of 16 bytes.
template <class T>
__host__ __device__ constexpr Index shared_room(Index n) {
  return (n * static_cast<Index>(sizeof(T)) + 15) / 16 * 16;
}

constexpr Index ceil_divide(Index a, Index b) { return (a + b - 1) / b; }

/// A grid's extents; Error where CUDA has no grid so large.
inline dim3 grid_of(Index x, Index y = 1) {
  require(x <= 0x7fffffff && y <= 65535, "a grid of " + std::to_string(x) + " by " +
                                             std::to_string(y) +
                                             " blocks is too large for CUDA; split the batch");
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y));
}

/// The number of the device that this thread works with.
inline int current_device() {
#ifdef DSA_CUDA_ON_HOST
  return 0;
#else
  int device = 0;
  CUDA_TRY(cudaGetDevice(&device));
  return device;
#endif
}

/// Bytes of shared memory that a block may ask for.
inline Index shared_memory_limit() {
#ifdef DSA_CUDA_ON_HOST
  return shared_limit;
#else
  int bytes = 0;
  CUDA_TRY(
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, current_device()));
  return bytes;
#endif
}

inline Index multiprocessors() {
#ifdef DSA_CUDA_ON_HOST
  return 8;
#else
  int count = 0;
  CUDA_TRY(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, current_device()));
  return count;
#endif
}

/// The same of sm_90, which rungs v3 are made for. The host takes both for what they are.
inline Index hopper_shared_memory_limit() {
#ifdef DSA_CUDA_ON_HOST
  return hopper_shared_limit;
#else
  return shared_memory_limit();
#endif
}

struct LaunchShape {
  dim3 grid, block;
  Index shared_bytes = 0;
  bool hopper = false;  // a kernel of sm_90a
  bool early = false;   // begins before the grid before it has ended, and waits for it itself
};

/// `name` is what an error is called by, e.g. "rmsnorm v1". An empty grid launches nothing.
template <class... P, class... A>
void launch([[maybe_unused]] Stream stream, const char* name, LaunchShape shape,
            void (*kernel)(P...), A... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0) return;
  const auto bytes = static_cast<std::size_t>(shape.shared_bytes);
#ifdef DSA_CUDA_ON_HOST
  run_grid(name, shape.grid, shape.block, bytes, {shape.hopper, shape.early},
           [&] { kernel(P(arguments)...); });
#else
  if (bytes > 48 << 10)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
          name);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  const cudaLaunchConfig_t config{shape.grid, shape.block, bytes,
                                  stream,     &early,      shape.early ? 1u : 0u};
  check(cudaLaunchKernelEx(&config, kernel, P(arguments)...), name);
#endif
}

}  // namespace dsa::cuda::DSA_PLACE
