#include "verify/kernels/backends/cuda.hpp"

#include "verify/kernels/backends/cuda/kernels.hpp"

namespace dsa::verify::kernels {

std::vector<Kernel> cuda_kernels() {
  std::vector<Kernel> all = host::kernels();
#ifdef DSA_CUDA
  for (Kernel& kernel : device::kernels()) all.push_back(std::move(kernel));
#endif
  return all;
}

}  // namespace dsa::verify::kernels
