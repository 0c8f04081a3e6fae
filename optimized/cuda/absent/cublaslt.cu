// optimized/cuda/absent/cublaslt.cu — a device build whose toolkit lacks cuBLASLt: every shape is
// refused, and linear goes to v2.
#include "optimized/cuda/ops/linear.cuh"

namespace dsa::cuda::device::cublaslt {

std::string linear_refuses(Index, Index, Index, bool) { return "this build has no cuBLASLt"; }

void linear(Stream, DeviceView<float, 2>, DeviceView<const bf16, 2>, DeviceView<const bf16, 2>,
            Scales, DeviceView<const float, 1>) {
  throw Error(linear_refuses(0, 0, 0, false));
}

}  // namespace dsa::cuda::device::cublaslt
