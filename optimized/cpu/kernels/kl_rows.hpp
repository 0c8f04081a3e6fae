// optimized/cpu/kernels/kl_rows.hpp — one row of the indexer's loss (ops/index_kl.hpp).
//
// z are scores of the student before its factor c; lse is log sum exp( c z ) over all its keys.
// Arrays may be read and written up to a multiple of 16 numbers.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// The largest c z, and the sum of exp( c z - largest ), n >= 1.
struct RowSum {
  float largest, sum;
};
using SumRow = RowSum(const float* z, std::int64_t n, float c);
DSA_DECLARE_IN_EVERY_TIER(SumRow, sum_row)

/// x becomes max( x + added, least ).
struct RowGuard {
  float added, least;
};
struct KlRow {
  float* u;        // (n) mass of the teacher's keys; becomes r
  const float* z;  // (n) of the same keys
  std::int64_t n;
  float over_sum;  // p = u times this
  float c, lse;
  RowGuard log_p, log_q;
};
struct KlSums {
  float loss, r;
};
using SumKl = KlSums(const KlRow&);
DSA_DECLARE_IN_EVERY_TIER(SumKl, sum_kl)

/// d[i] = factor ( r[i] - exp( c z[i] - lse ) sum_r ), i < n; r null: 0. d may be z.
struct KlGradientRow {
  float* d;
  const float *r, *z;
  std::int64_t n;
  float c, lse, sum_r, factor;
};
using DifferentiateKl = void(const KlGradientRow&);
DSA_DECLARE_IN_EVERY_TIER(DifferentiateKl, differentiate_kl)

}  // namespace dsa::cpu
