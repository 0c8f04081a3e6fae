#include "optimized/cpu/kernels/swiglu.hpp"

#include "optimized/cpu/kernels/native.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

/// exp(x), to 2 units in the last place, x clamped to [-87, 88]: 2^n e^r with |r| <= ln 2 / 2, the
/// series to r^7 (its rest is below 2^-27).
Vector clamped_exponential(Vector x) {
  x = x < -87.0f ? fill(-87.0f) : x;
  x = x > 88.0f ? fill(88.0f) : x;
  const Vector magic = fill(0x1.8p23f);  // adding it rounds to an integer, in the low bits
  const Vector shifted = fused(x, fill(0x1.715476p0f), magic);
  const Vector n = shifted - magic;
  Vector r = fused(n, fill(-0x1.62e4p-1f), x);  // ln 2 in two parts, n of 8 bits
  r = fused(n, fill(-0x1.7f7d1cp-20f), r);
  Vector e = fill(1.0f / 5040);
  for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    e = fused(e, r, fill(c));
  return as_vector(as_integers(e) + (as_integers(shifted) << 23));
}

Vector swiglu(Vector gate, Vector up) { return gate / (1.0f + clamped_exponential(-gate)) * up; }

/// d_gate and d_up over gate and up, from d_h.
void backward(Vector& gate, Vector& up, Vector d_h) {
  const Vector a = 1.0f / (1.0f + clamped_exponential(-gate));
  const Vector d_gate = d_h * up * a * (1.0f + gate * (1.0f - a));
  up = d_h * gate * a;
  gate = d_gate;
}

void write(RowOut h, Index first, const float* values, Index n) {
  for (Index i = 0; i < n; ++i)
    if (h.f32)
      h.f32[first + i] = values[i];
    else
      h.bf16[first + i] = narrow(values[i]);
}

}  // namespace

void swiglu_row(RowOut h, const float* gate_up, Index F) {
  const Index whole = h.f32 ? F / width * width : 0;
  for (Index f = 0; f < whole; f += width)
    put(h.f32 + f, swiglu(vector_at(gate_up + f), vector_at(gate_up + F + f)));
  for (Index f = whole; f < F; f += width) {
    float gate[width] = {}, up[width] = {}, values[width];
    const Index n = F - f < width ? F - f : width;
    std::memcpy(gate, gate_up + f, static_cast<std::size_t>(4 * n));
    std::memcpy(up, gate_up + F + f, static_cast<std::size_t>(4 * n));
    put(values, swiglu(vector_at(gate), vector_at(up)));
    write(h, f, values, n);
  }
}

void swiglu_backward_row(float* d_gate_up, const float* gate_up, const float* d_h, Index F) {
  const Index whole = F / width * width;
  for (Index f = 0; f < whole; f += width) {
    Vector gate = vector_at(gate_up + f), up = vector_at(gate_up + F + f);
    backward(gate, up, vector_at(d_h + f));
    put(d_gate_up + f, gate);
    put(d_gate_up + F + f, up);
  }
  for (Index f = whole; f < F; f += width) {
    const Index n = F - f < width ? F - f : width;
    const auto bytes = static_cast<std::size_t>(4 * n);
    float values[3][width] = {};
    std::memcpy(values[0], gate_up + f, bytes);
    std::memcpy(values[1], gate_up + F + f, bytes);
    std::memcpy(values[2], d_h + f, bytes);
    Vector gate = vector_at(values[0]), up = vector_at(values[1]);
    backward(gate, up, vector_at(values[2]));
    put(values[0], gate);
    put(values[1], up);
    std::memcpy(d_gate_up + f, values[0], bytes);
    std::memcpy(d_gate_up + F + f, values[1], bytes);
  }
}

}  // namespace dsa::cpu::DSA_TIER
