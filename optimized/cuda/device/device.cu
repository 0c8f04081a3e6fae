#include "optimized/cuda/device/device.cuh"
#include "optimized/cuda/device/device.hpp"

namespace dsa::cuda::DSA_PLACE {

#ifdef DSA_CUDA_ON_HOST

std::string what_is_missing() { return ""; }

bool has_hopper_code() { return true; }

#else

namespace {

/// Built for what all kernels are built for: if the runtime has code for it, it has for them.
__global__ void nothing() {}

/// Stops at the first question that is not answered, and at a device that is too old to be asked.
DeviceFacts facts() {
  DeviceFacts d;
  const auto answers = [&](cudaError_t status) {
    if (status != cudaSuccess) d.trouble = cudaGetErrorString(status);
    return status == cudaSuccess;
  };
  if (!answers(cudaDriverGetVersion(&d.driver)) || !answers(cudaRuntimeGetVersion(&d.runtime)))
    return d;
  if (!answers(cudaGetDeviceCount(&d.devices))) {
    d.devices = 0;
    return d;
  }
  int device = 0;
  cudaDeviceProp properties;
  if (d.devices == 0 || !answers(cudaGetDevice(&device)) ||
      !answers(cudaGetDeviceProperties(&properties, device)))
    return d;
  d.name = properties.name, d.major = properties.major, d.minor = properties.minor;
  std::size_t available = 0, all = 0;
  if (d.major < 8 || !answers(cudaMemGetInfo(&available, &all))) return d;
  d.free_memory = static_cast<Index>(available);
  cudaFuncAttributes attributes;
  const cudaError_t status = cudaFuncGetAttributes(&attributes, nothing);
  if (status == cudaErrorUnsupportedPtxVersion)
    d.code = DeviceFacts::Code::newer_than_driver;
  else if (status != cudaErrorNoKernelImageForDevice && status != cudaErrorInvalidDeviceFunction &&
           status != cudaErrorInvalidKernelImage && answers(status))
    d.code = DeviceFacts::Code::found;
  return d;
}

}  // namespace

std::string what_is_missing() {
  const std::string missing = cuda::what_is_missing(facts(), DSA_CUDA_ARCHITECTURES);
  cudaGetLastError();  // a question that was not answered is not the next kernel's error
  return missing;
}

bool has_hopper_code() {
  int device = 0, major = 0;
  CUDA_TRY(cudaGetDevice(&device));
  CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major == 9 && std::string(DSA_CUDA_ARCHITECTURES).find("90a") != std::string::npos;
}

#endif

}  // namespace dsa::cuda::DSA_PLACE
