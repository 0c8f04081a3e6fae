// optimized/cpu/kernels/block_softmax.hpp — what happens to a block of scores between two products.
//
// A block holds the dots q.k of some queries (rows) with some keys (columns). A query sees the
// columns [begin[i], end[i]) of it, and may see none.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

struct ScoreBlock {
  float*
      x;  // (m, n), rows `row` floats apart; columns up to a multiple of the lanes may be written
  std::int64_t row;
  std::int64_t m, n;
  const std::int32_t *begin, *end;  // (m)
  float scale;                      // a score is scale times a dot
};

/// One block more of a running softmax.
struct RunningSoftmax {
  float* m;    // (m) largest score so far
  float* l;    // (m) sum of exp( score - m )
  float* out;  // (m, U) sum of exp( score - m ) v, rows `row` floats apart
  std::int64_t row, U;
};
/// Dots become exp( score - m ), 0 where unseen, and the sums so far are brought to the new m; what
/// the block adds to `out` is left to a product.
using SoftmaxBlock = void(const ScoreBlock&, const RunningSoftmax&);
DSA_DECLARE_IN_EVERY_TIER(SoftmaxBlock, softmax_block)

/// Dots become p = exp( score - lse ), and d_p becomes scale p ( d_p - delta ); 0 where unseen.
using SoftmaxGradientBlock = void(const ScoreBlock&, float* d_p, const float* lse,
                                  const float* delta);
DSA_DECLARE_IN_EVERY_TIER(SoftmaxGradientBlock, softmax_gradient_block)

/// u[i][j] += exp( score - lse[i] ) where seen; rows of u are u_row floats apart.
using AddMassBlock = void(float* u, std::int64_t u_row, const ScoreBlock&, const float* lse,
                          std::int64_t lse_step);
DSA_DECLARE_IN_EVERY_TIER(AddMassBlock, add_mass_block)

}  // namespace dsa::cpu
