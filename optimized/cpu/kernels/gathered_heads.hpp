// optimized/cpu/kernels/gathered_heads.hpp — all heads of one query against the rows it chose.
//
// A row holds its channels one after the other, and of each channel the heads side by side, padded
// to whole registers (M): a register holds one channel of several heads, so that no sum runs across
// a register, and a chosen row is read in one piece.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// Rows ids[j], j < n, of a matrix of rows (channels, M).
struct GatheredRows {
  const float* data;
  const std::int32_t* ids;
  std::int64_t n, channels, M;
};

/// z[j][h] = sum_c q[c][h] row_j[c][h]; q (channels, M), z (n, M).
using GatheredDots = void(float* z, const float* q, const GatheredRows&);
DSA_DECLARE_IN_EVERY_TIER(GatheredDots, gathered_dots)

/// out[c][h] = sum_j p[j][h] row_j[c][h]; out (channels, M), p (n, M).
using GatheredSum = void(float* out, const float* p, const GatheredRows&);
DSA_DECLARE_IN_EVERY_TIER(GatheredSum, gathered_sum)

/// row ids[j] += p[j][h] x[c][h] of the matrix d, whose rows are as those of GatheredRows.
using ScatterProduct = void(float* d, const float* p, const float* x, const GatheredRows&);
DSA_DECLARE_IN_EVERY_TIER(ScatterProduct, scatter_product)

/// Dots z (n, M) become exp( scale z - m ); m and l (M): the largest score and the sum. n >= 1.
using GatheredSoftmax = void(float* z, float* m, float* l, float scale, std::int64_t n,
                             std::int64_t M);
DSA_DECLARE_IN_EVERY_TIER(GatheredSoftmax, gathered_softmax)

/// Dots z (n, M) become p = exp( scale z - lse ), and d_p becomes scale p ( d_p - delta );
/// lse and delta (M).
using GatheredGradient = void(float* z, float* d_p, const float* lse, const float* delta,
                              float scale, std::int64_t n, std::int64_t M);
DSA_DECLARE_IN_EVERY_TIER(GatheredGradient, gathered_gradient)

/// u[j] = sum_h exp( scale z[j][h] - lse[h] ): an lse of +infinity takes a head out.
using GatheredMass = void(float* u, const float* z, const float* lse, float scale, std::int64_t n,
                          std::int64_t M);
DSA_DECLARE_IN_EVERY_TIER(GatheredMass, gathered_mass)

}  // namespace dsa::cpu
