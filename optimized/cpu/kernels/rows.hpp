// optimized/cpu/kernels/rows.hpp — sums and products of whole rows, in every tier.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// y[c] += w x[c]
using AddScaledRow = void(float* y, const float* x, float w, std::int64_t C);
DSA_DECLARE_IN_EVERY_TIER(AddScaledRow, add_scaled_row)

/// Returns sum_f a[f] b[f], and multiplies both rows by w.
using DotAndScaleRow = float(float* a, float* b, float w, std::int64_t F);
DSA_DECLARE_IN_EVERY_TIER(DotAndScaleRow, dot_and_scale_row)

}  // namespace dsa::cpu
