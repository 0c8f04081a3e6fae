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

}  // namespace dsa::cpu
