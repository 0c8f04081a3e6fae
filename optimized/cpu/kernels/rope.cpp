#include "optimized/cpu/kernels/rope.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

/// Channels `step` i and `step` i + `apart` of one head.
template <int step>
void turn(float* x, const float* cos, const float* sin, std::int64_t half, std::int64_t apart) {
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = x[step * i], b = x[step * i + apart];
    x[step * i] = a * cos[i] - b * sin[i];
    x[step * i + apart] = b * cos[i] + a * sin[i];
  }
}

}  // namespace

void rope_heads(float* x, std::int64_t heads, std::int64_t width, const Rotation& r) {
  for (std::int64_t h = 0; h < heads; ++h)
    if (r.interleaved)
      turn<2>(x + h * width, r.cos, r.sin, r.half, 1);
    else
      turn<1>(x + h * width, r.cos, r.sin, r.half, r.half);
}

}  // namespace dsa::cpu::DSA_TIER
