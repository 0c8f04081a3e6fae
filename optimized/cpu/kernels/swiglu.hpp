// optimized/cpu/kernels/swiglu.hpp — one row of SwiGLU, in every tier.
#pragma once

#include "optimized/cpu/kernels/row_out.hpp"
#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// h[f] = gate_up[f] / (1 + exp(-gate_up[f])) * gate_up[F + f], f < F.
using SwigluRow = void(RowOut h, const float* gate_up, std::int64_t F);
DSA_DECLARE_IN_EVERY_TIER(SwigluRow, swiglu_row)

}  // namespace dsa::cpu
