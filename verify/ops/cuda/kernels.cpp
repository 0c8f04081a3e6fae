#include "verify/ops/cuda/kernels.hpp"

#include "optimized/cuda/device.cuh"
#include "verify/ops/cuda/binding.hpp"

namespace dsa::verify::DSA_PLACE {
namespace {

#ifdef DSA_CUDA_ON_HOST
constexpr Ran ran = Ran::host;
#else
constexpr Ran ran = Ran::device;
#endif

/// The emulator runs some 10^7 multiplications a second.
constexpr double most_flops_on_host = 1e8;

std::string reason(const Rung& rung, const Case& c) {
  if (ran == Ran::host && c.flops > most_flops_on_host)
    return "the host's emulation of CUDA is too slow for cases of more than 10^8 operations";
  return rung.refuses(c);
}

}  // namespace

std::vector<Kernel> kernels() {
  std::vector<Kernel> all;
  const std::string missing = what_is_missing();
  for (const auto& list : {plain_rungs(), indexer_rungs(), attention_rungs()})
    for (const Rung& rung : list) {
      Kernel kernel{rung.op, "cuda", rung.rung, rung.dtype, Ran::compiled, {}, {}};
      kernel.refuses = [rung](const Case& c) { return reason(rung, c); };
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

}  // namespace dsa::verify::DSA_PLACE
