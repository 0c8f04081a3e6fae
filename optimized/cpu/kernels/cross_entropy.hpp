// optimized/cpu/kernels/cross_entropy.hpp — one row of the cross entropy, in every tier.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

struct LogSumExp {
  float largest;  // of z
  double sum;     // of exp( z - largest ) > 0
};

using LogSumExpRow = LogSumExp(const float* z, std::int64_t V);
DSA_DECLARE_IN_EVERY_TIER(LogSumExpRow, log_sum_exp_row)

/// z[v] becomes factor exp( z[v] - largest ).
using ScaledExpRow = void(float* z, std::int64_t V, float largest, float factor);
DSA_DECLARE_IN_EVERY_TIER(ScaledExpRow, scaled_exp_row)

}  // namespace dsa::cpu
