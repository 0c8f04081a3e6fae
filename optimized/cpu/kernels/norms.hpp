// optimized/cpu/kernels/norms.hpp — one row of a norm, in every tier.
#pragma once

#include "optimized/cpu/kernels/row_out.hpp"
#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// y[c] = g[c] x[c] / sqrt(mean x^2 + eps), c < C.
using RmsnormRow = void(RowOut y, const float* x, const float* g, std::int64_t C, double eps);
DSA_DECLARE_IN_EVERY_TIER(RmsnormRow, rmsnorm_row)

/// The same for g[c] (x[c] - mean) / sqrt(variance + eps) + b[c].
using LayernormRow = void(RowOut y, const float* x, const float* g, const float* b, std::int64_t C,
                          double eps);
DSA_DECLARE_IN_EVERY_TIER(LayernormRow, layernorm_row)

/// Some rows of a norm backwards. d_x is written, or added to; d_g and d_b (C) are written with the
/// sums over these rows.
struct NormRows {
  const float *x, *g, *d_y;  // (rows, C), (C), (rows, C)
  float* d_x;                // (rows, C)
  float *d_g, *d_b;          // (C); d_b is null for rmsnorm
  std::int64_t rows, C;
  double eps;
  bool add;
};
using NormBackward = void(const NormRows&);
DSA_DECLARE_IN_EVERY_TIER(NormBackward, rmsnorm_backward_rows)
DSA_DECLARE_IN_EVERY_TIER(NormBackward, layernorm_backward_rows)

}  // namespace dsa::cpu
