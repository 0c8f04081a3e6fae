// optimized/cpu/ops/indexer_topk.hpp — the indexer's scores and the selection, in one pass.
//
//   scores[t,s] = sum_h w[t,h] act( q[t,h,:] . k[s,:] )      for visible s, act = relu or identity
//   chosen[t,:] = the min(K, visible) keys of largest scores[t,:], in ascending order, then -1
//
// Definition: reference/ops/indexer_scores.hpp and topk_select.hpp. w carries every scale (D^-1/2,
// H^-1/2, q's FP8 scale: positive, so they commute with relu); an e4m3 key is multiplied by its own
// scale after the sum. Total order: value descending, then index ascending; -0 = +0.
// A score of -inf is never chosen. Scores are never kept beyond a block: memory is O(T K). A query
// that sees no more than K keys chooses all of them, and nothing is scored: no NaN is noticed
// there.
#pragma once

#include "optimized/cpu/ops/scratch.hpp"
#include "optimized/cpu/ops/tier.hpp"
#include "optimized/shared/key_range.hpp"
#include "optimized/shared/rows.hpp"

namespace dsa::cpu {

/// Row: float, bf16 or e4m3.
template <class Row>
struct IndexerIn {
  View<const Row, 3> q;    // (T, H, D)
  Pages<const Row> k;      // (S, D)     rows.hpp
  View<const float, 2> w;  // (T, H)
  bool relu;
  KeyRanges visible;  // (T)
};

/// Error: a score is NaN (its place is named), shapes disagree, a range of visible keys leaves the
/// cache.
template <class Row>
void indexer_topk(Cpu, View<std::int32_t, 2> chosen,  // (T, K)     out
                  const IndexerIn<Row>&, Scratch);
Index indexer_topk_scratch(Index H, Index D, Index K);

/// The scores alone, all of them: -inf where invisible.
template <class Row>
void indexer_scores(Cpu, View<float, 2> scores,  // (T, S)     out
                    const IndexerIn<Row>&, Scratch);
Index indexer_scores_scratch(Index H, Index D);

}  // namespace dsa::cpu
