// verify/measure/bounds.hpp — rounding error bounds: where the tolerances of kernels come from.
#pragma once

#include <cmath>

#include "core/tensor.hpp"

namespace dsa::verify {

inline constexpr double unit_roundoff_fp64 = 0x1p-53;
inline constexpr double unit_roundoff_fp32 = 0x1p-24;
inline constexpr double unit_roundoff_bf16 = 0x1p-8;

/// What lies below may be flushed to zero: vdpbf16ps does so with inputs, products and sums, and
/// many an exp and many a compiler with results.
inline constexpr double smallest_normal_fp32 = 0x1p-126;

/// Higham, Accuracy and Stability, Lemma 3.1: n roundings change a product by at most this
/// relative amount, in whatever order they happen.
constexpr double gamma(Index n, double u) {
  const double nu = static_cast<double>(n) * u;
  return nu / (1 - nu);
}

/// How exact exp and log of a kernel must be: two units in the last place, which vector libraries
/// and CUDA's expf and exp2f promise.
inline constexpr Index function_roundings = 4;

/// Relative error of exp(x) in fp32 for an x that is itself wrong by `x_error`: the function's own,
/// and two roundings of its argument, of size `magnitude` (x, or what x is the difference of): the
/// difference from the maximum and the product with log2 e, where exp2 is what is computed.
inline double exp_error(double magnitude, double x_error) {
  return std::expm1(gamma(function_roundings, unit_roundoff_fp32) +
                    gamma(2, unit_roundoff_fp32) * magnitude + x_error);
}

}  // namespace dsa::verify
