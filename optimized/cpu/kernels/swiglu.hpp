// optimized/cpu/kernels/swiglu.hpp — one row of SwiGLU, in every tier.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// h[f] = gate_up[f] / (1 + exp(-gate_up[f])) * gate_up[F + f], f < F; h as float or as bf16, the
/// other null.
using SwigluRow = void(float* h, std::uint16_t* h_bf16, const float* gate_up, std::int64_t F);
DSA_DECLARE_IN_EVERY_TIER(SwigluRow, swiglu_row)

}  // namespace dsa::cpu
