// optimized/cpu/kernels/swiglu.hpp — one row of SwiGLU, in every tier.
#pragma once

#include "optimized/cpu/kernels/row_out.hpp"
#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// h[f] = gate_up[f] / (1 + exp(-gate_up[f])) * gate_up[F + f], f < F.
using SwigluRow = void(RowOut h, const float* gate_up, std::int64_t F);
DSA_DECLARE_IN_EVERY_TIER(SwigluRow, swiglu_row)

/// d_gate_up (2F) of one row, from gate_up (2F) and d_h (F).
using SwigluBackwardRow = void(float* d_gate_up, const float* gate_up, const float* d_h,
                               std::int64_t F);
DSA_DECLARE_IN_EVERY_TIER(SwigluBackwardRow, swiglu_backward_row)

}  // namespace dsa::cpu
