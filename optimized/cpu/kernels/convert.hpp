// optimized/cpu/kernels/convert.hpp — float to bf16 and back, in every tier.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// To nearest, ties to even; a NaN stays a NaN.
using NarrowRow = void(std::uint16_t* y, const float* x, std::int64_t n);
DSA_DECLARE_IN_EVERY_TIER(NarrowRow, narrow_row)

using WidenRow = void(float* y, const std::uint16_t* x, std::int64_t n);
DSA_DECLARE_IN_EVERY_TIER(WidenRow, widen_row)

}  // namespace dsa::cpu
