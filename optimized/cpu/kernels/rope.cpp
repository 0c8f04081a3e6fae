#include "optimized/cpu/kernels/rope.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

/// Channels `step` i and `step` i + `apart` of one head.
template <int step, bool back>
void turn(float* x, const float* cos, const float* sin, std::int64_t half, std::int64_t apart) {
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = x[step * i], b = x[step * i + apart];
    const float s = back ? -sin[i] : sin[i];
    x[step * i] = a * cos[i] - b * s;
    x[step * i + apart] = b * cos[i] + a * s;
  }
}

template <bool back>
void turn_head(float* x, const Rotation& r) {
  if (r.interleaved)
    turn<2, back>(x, r.cos, r.sin, r.half, 1);
  else
    turn<1, back>(x, r.cos, r.sin, r.half, r.half);
}

}  // namespace

void rope_heads(float* x, std::int64_t heads, std::int64_t width, const Rotation& r) {
  for (std::int64_t h = 0; h < heads; ++h)
    if (r.back)
      turn_head<true>(x + h * width, r);
    else
      turn_head<false>(x + h * width, r);
}

}  // namespace dsa::cpu::DSA_TIER
