#include "verify/ops/cuda/kernels.hpp"

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
  for (const auto& list : {plain_rungs(), indexer_rungs(), attention_rungs()})
    for (const Rung& rung : list) {
      Kernel kernel{rung.op, "cuda", rung.rung, rung.dtype, Ran::compiled, {}, {}};
      kernel.refuses = [rung](const Case& c) { return reason(rung, c); };
      if (device_available()) {
        kernel.ran = ran;
        kernel.prepare = rung.prepare;
      }
      all.push_back(std::move(kernel));
    }
  return all;
}

}  // namespace dsa::verify::DSA_PLACE
