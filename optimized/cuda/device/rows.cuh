// optimized/cuda/device/rows.cuh — the numbers of a cache's rows, in the formats of
// optimized/shared/rows.hpp.
#pragma once

#include "optimized/cuda/device/numbers.cuh"

namespace dsa::cuda::DSA_PLACE {

inline constexpr Index fp8_run = 128;  // channels of a latent that share a scale

/// Elements of a row: those of (R+P), or bytes of e4m3 rows.
template <class T>
constexpr Index latent_width(Index R, Index P) {
  return std::is_same_v<T, e4m3> ? R + 4 * ((R + fp8_run - 1) / fp8_run) + 2 * P : R + P;
}
template <class T>
constexpr Index key_width(Index D) {
  return std::is_same_v<T, e4m3> ? D + 4 : D;
}

template <class T>
void expect_width(const char* name, const Pages<const T>& rows, Index width) {
  require(rows.width == width, "a row of " + std::string(name) + " has " +
                                   std::to_string(rows.width) + " elements, expected " +
                                   std::to_string(width));
}

/// A float or bf16 at any address of a row of bytes.
__device__ inline float float_at(DeviceView<const e4m3, 1> row, Index byte) {
  std::uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) bits |= std::uint32_t{row(byte + i).bits} << 8 * i;
  return float_of(bits);
}
__device__ inline float bf16_at(DeviceView<const e4m3, 1> row, Index byte) {
  return float_of(std::uint32_t{row(byte).bits} << 16 | std::uint32_t{row(byte + 1).bits} << 24);
}

/// Channel c of a latent row [c_kv R | k_rope P].
template <class T>
__device__ float latent_at(DeviceView<const T, 1> row, Index c, Index R) {
  if constexpr (std::is_same_v<T, e4m3>) {
    if (c < R) return widen(row(c)) * float_at(row, R + 4 * (c / fp8_run));
    return bf16_at(row, R + 4 * ((R + fp8_run - 1) / fp8_run) + 2 * (c - R));
  } else {
    return widen(row(c));
  }
}

}  // namespace dsa::cuda::DSA_PLACE
