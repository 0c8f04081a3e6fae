// optimized/cpu/kernels/index_gradient.hpp — from the gradient of the indexer's scores to that of
// its dots a = q.k, for a block of queries and keys of one head, or for all heads of one query and
// the keys it chose.
//
//   forward: scores += w act(a)    so:  d_w += act(a) d_scores,   d_a = w d_scores where a > 0
//
// Here w carries every scale that multiplies a positive dot.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// Queries i < m, keys j < n of one head.
struct IndexGradientBlock {
  float* a;  // (m, n), rows `row` floats apart: dots, which become d_a, 0 where unseen
  std::int64_t row;
  const float* d_scores;  // (m, n), rows `d_row` floats apart; read where seen
  std::int64_t d_row;
  const std::int32_t *begin, *end;  // (m): query i sees [begin[i], end[i])
  std::int64_t m, n;
  const float* w;  // (m), `step` floats apart
  float* d_w;      // (m), `step` floats apart; added to
  std::int64_t step;
  bool relu;
};
using DifferentiateIndexBlock = void(const IndexGradientBlock&);
DSA_DECLARE_IN_EVERY_TIER(DifferentiateIndexBlock, differentiate_index_block)

/// scores[j] = sum_h w[h] act( a[j][h] ); a (n, M), w (M), 0 behind the last head.
using WeighChosen = void(float* scores, const float* a, const float* w, std::int64_t n,
                         std::int64_t M, bool relu);
DSA_DECLARE_IN_EVERY_TIER(WeighChosen, weigh_chosen)

/// Dots a (n, M) become d_a, and d_w (M) is written.
using DifferentiateChosen = void(float* a, float* d_w, const float* d_scores, const float* w,
                                 std::int64_t n, std::int64_t M, bool relu);
DSA_DECLARE_IN_EVERY_TIER(DifferentiateChosen, differentiate_chosen)

/// Rows `row` floats apart: to[j] = from[ids[j]], or to[ids[j]] += from[j], j < n. `columns` is
/// made a multiple of the tier's lanes.
using GatherRows = void(float* to, const float* from, const std::int32_t* ids, std::int64_t n,
                        std::int64_t row, std::int64_t columns);
DSA_DECLARE_IN_EVERY_TIER(GatherRows, gather_rows)
DSA_DECLARE_IN_EVERY_TIER(GatherRows, scatter_rows)

}  // namespace dsa::cpu
