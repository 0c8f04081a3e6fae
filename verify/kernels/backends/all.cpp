#include "verify/kernels/backends/cpu.hpp"
#include "verify/kernels/backends/cuda.hpp"

namespace dsa::verify::kernels {

std::vector<Kernel> all_kernels() {
  std::vector<Kernel> kernels = cpu_kernels();
  for (Kernel& kernel : cuda_kernels()) kernels.push_back(std::move(kernel));
  return kernels;
}

}  // namespace dsa::verify::kernels
