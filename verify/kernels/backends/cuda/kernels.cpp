#include "verify/kernels/backends/cuda/kernels.hpp"

#include "optimized/cuda/device/device.cuh"
#include "verify/kernels/backends/cuda/binding.hpp"

namespace dsa::verify::kernels::DSA_PLACE {
namespace {

#ifdef DSA_CUDA_ON_HOST
constexpr Ran ran = Ran::host;
constexpr double most_flops = 1e8;  // the emulator runs some 10^7 multiplications a second
#else
constexpr Ran ran = Ran::device;
constexpr double most_flops = std::numeric_limits<double>::infinity();
#endif

}  // namespace

std::vector<Kernel> kernels() {
  std::vector<Kernel> all;
  const std::string missing = what_is_missing();
  for (const auto& list : {plain_rungs(), indexer_rungs(), mla_rungs()})
    for (const Rung& rung : list) {
      Kernel kernel{.op = rung.op,
                    .backend = "cuda",
                    .rung = rung.rung,
                    .dtype = rung.dtype,
                    .ran = Ran::compiled,
                    .refuses = rung.refuses,
                    .prepare = {},
                    .most_flops = most_flops};
      if (missing.empty()) {
        kernel.ran = ran;
        kernel.prepare = rung.prepare;
      } else {
        kernel.why = "built, but it needs " + missing;
      }
      all.push_back(std::move(kernel));
    }
  return all;
}

}  // namespace dsa::verify::kernels::DSA_PLACE
