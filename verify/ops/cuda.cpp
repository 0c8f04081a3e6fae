#include "verify/ops/cuda.hpp"

#include "verify/ops/cuda/kernels.hpp"

namespace dsa::verify {

std::vector<Kernel> cuda_kernels() {
  std::vector<Kernel> all = host::kernels();
#ifdef DSA_CUDA
  for (Kernel& kernel : device::kernels()) all.push_back(std::move(kernel));
#endif
  return all;
}

}  // namespace dsa::verify
