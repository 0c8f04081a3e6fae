#include "optimized/cpu/kernels/quantise.hpp"

#include "optimized/cpu/kernels/native.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

float float_of(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

/// x, at most 448 in magnitude, to nearest, ties to even.
std::uint8_t to_e4m3(float x) {
  const std::uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu;
  constexpr std::uint32_t smaller_bias = (127u - 7u) << 3;
  const std::uint32_t normal =
      ((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - smaller_bias;
  // Below 2^-6 numbers are 2^-9 apart, as floats are from 2^14 on.
  const std::uint32_t subnormal = bits_of(float_of(magnitude) + 0x1p14f) - bits_of(0x1p14f);
  std::uint32_t code = magnitude < bits_of(0x1p-6f) ? subnormal : normal;
  code = magnitude > bits_of(448.0f) ? 0x7fu : code;  // NaN
  return static_cast<std::uint8_t>(code | (bits >> 24 & 0x80u));
}

/// The largest magnitude; a NaN has none.
float largest(const float* x, std::int64_t n) {
  std::uint32_t most = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint32_t bits = bits_of(x[i]) & 0x7fffffffu;
    bits = bits > 0x7f800000u ? 0 : bits;
    most = bits > most ? bits : most;
  }
  return float_of(most);
}

float scale_of(float amax, bool ue8m0) {
  // The product of two floats is exact in double; 1e-4 is not a float.
  const double floor = amax < 1e-4 ? 1e-4 : static_cast<double>(amax);
  const float scale = static_cast<float>(floor * static_cast<double>(1 / 448.0f));
  return ue8m0 ? float_of((bits_of(scale) + 0x7fffffu) & 0xff800000u) : scale;
}

}  // namespace

float quantise_row(std::uint8_t* y, const float* x, std::int64_t n, bool ue8m0) {
  const float scale = scale_of(largest(x, n), ue8m0);
  for (std::int64_t i = 0; i < n; ++i) {
    float value = x[i] / scale;
    value = value > 448.0f ? 448.0f : value;
    value = value < -448.0f ? -448.0f : value;
    y[i] = to_e4m3(value);
  }
  return scale;
}

void hadamard_row(float* y, const float* x, std::int64_t D) {
  for (std::int64_t d = 0; d < D; ++d) y[d] = float_of(std::uint32_t{narrow(x[d])} << 16);
  for (std::int64_t half = 1; half < D; half *= 2)
    for (std::int64_t start = 0; start < D; start += 2 * half)
      for (std::int64_t i = start; i < start + half; ++i) {
        const float a = y[i], b = y[i + half];
        y[i] = a + b;
        y[i + half] = a - b;
      }
  const float scale = static_cast<float>(1 / __builtin_sqrt(static_cast<double>(D)));
  for (std::int64_t d = 0; d < D; ++d) y[d] = float_of(std::uint32_t{narrow(y[d] * scale)} << 16);
}

}  // namespace dsa::cpu::DSA_TIER
