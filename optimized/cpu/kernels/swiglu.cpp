#include "optimized/cpu/kernels/swiglu.hpp"

#include "optimized/cpu/kernels/simd.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

/// exp(x), to 2 units in the last place, x clamped to [-87, 88]: 2^n e^r with |r| <= ln 2 / 2, the
/// series to r^7 (its rest is below 2^-27).
Floats exponential(Floats x) {
  x = x < -87.0f ? broadcast(-87.0f) : x;
  x = x > 88.0f ? broadcast(88.0f) : x;
  const Floats magic = broadcast(0x1.8p23f);  // adding it rounds to an integer, in the low bits
  const Floats shifted = multiply_add(x, broadcast(0x1.715476p0f), magic), n = shifted - magic;
  Floats r = multiply_add(n, broadcast(-0x1.62e4p-1f), x);  // ln 2 in two parts, n of 8 bits
  r = multiply_add(n, broadcast(-0x1.7f7d1cp-20f), r);
  Floats e = broadcast(1.0f / 5040);
  for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    e = multiply_add(e, r, broadcast(c));
  return (Floats)((Ints)e + ((Ints)shifted << 23));
}

Floats swiglu(Floats gate, Floats up) { return gate / (1.0f + exponential(-gate)) * up; }

void put(float* h, std::uint16_t* h_bf16, const float* values, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i)
    if (h)
      h[i] = values[i];
    else
      h_bf16[i] = narrow(values[i]);
}

}  // namespace

void swiglu_row(float* h, std::uint16_t* h_bf16, const float* gate_up, std::int64_t F) {
  for (std::int64_t f = 0; f < F; f += lanes) {
    float gate[lanes] = {}, up[lanes] = {}, values[lanes];
    const std::int64_t n = F - f < lanes ? F - f : lanes;
    std::memcpy(gate, gate_up + f, 4 * n);
    std::memcpy(up, gate_up + F + f, 4 * n);
    store(values, swiglu(load(gate), load(up)));
    put(h ? h + f : nullptr, h_bf16 ? h_bf16 + f : nullptr, values, n);
  }
}

}  // namespace dsa::cpu::DSA_TIER
