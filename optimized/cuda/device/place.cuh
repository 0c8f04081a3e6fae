// optimized/cuda/device/place.cuh — where the kernels of this translation unit will run.
//
// The same sources are compiled twice: by nvcc, in namespace dsa::cuda::device, and by the C++
// compiler with DSA_CUDA_ON_HOST, in namespace dsa::cuda::host, where optimized/cuda/host/ runs
// them on the processor. Kernels are written in CUDA's own words (threadIdx, __syncthreads,
// __shfl_xor_sync); what host code needs of the runtime is below.
#pragma once

#include "core/tensor.hpp"

#ifdef DSA_CUDA_ON_HOST
#define DSA_PLACE host
#include "optimized/cuda/host/words.hpp"
#else
#define DSA_PLACE device
#include <cuda_runtime.h>

namespace dsa::cuda::device {

using Stream = cudaStream_t;

/// Every CUDA call goes through here. The message names the call, not only the code.
inline void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess)
    throw Error(std::string(call) + " failed: " + cudaGetErrorString(status));
}
#define CUDA_TRY(call) ::dsa::cuda::device::check((call), #call)

}  // namespace dsa::cuda::device
#endif
