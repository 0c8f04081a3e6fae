// optimized/cpu/kernels/counted.hpp — a count known when compiling, out of one known when running.
#pragma once

#include <cstdint>

namespace dsa::cpu::DSA_TIER {
namespace {  // nothing here may be merged by the linker

/// Calls f<min(n, most)>(), n >= 1.
template <int most, class F>
void counted(std::int64_t n, F f) {
  if constexpr (most > 1) {
    if (n < most) return counted<most - 1>(n, f);
  }
  f.template operator()<most>();
}

}  // namespace
}  // namespace dsa::cpu::DSA_TIER
