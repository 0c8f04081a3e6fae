// verify/bounds.hpp — rounding error bounds.
#pragma once

#include "core/tensor.hpp"

namespace dsa::verify {

inline constexpr double unit_roundoff_fp64 = 0x1p-53;
inline constexpr double unit_roundoff_fp32 = 0x1p-24;
inline constexpr double unit_roundoff_bf16 = 0x1p-8;

/// Higham, Accuracy and Stability, Lemma 3.1: n roundings change a product by at most this
/// relative amount, in whatever order they happen.
constexpr double gamma(Index n, double u) {
  const double nu = static_cast<double>(n) * u;
  return nu / (1 - nu);
}

}  // namespace dsa::verify
