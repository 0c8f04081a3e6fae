// optimized/cpu/ops/index_scores.hpp — the lightning indexer in training, fp32: selection, and the
// gradient of its scores.
//
//   forward: scores[t,s] = sum_h b w[t,h] act( c q[t,h,:] . k[s,:] ),  begin[t] <= s <= t
//   so:      d_w = b sum_s act(a) d_scores,   d_a = b w d_scores where a > 0 (relu),
//            d_q = c sum_s d_a k,   d_k = c sum_{t,h} d_a q;   a = c q.k
//
// The Q queries are those of the last Q of T rows (heads_attention.hpp).
//
// Definition: reference/ops/indexer_scores.hpp; c is the Indexer's dot_scale and b its
// weight_scale. The subgradient of relu at 0 is 0.
#pragma once

#include "core/config.hpp"
#include "optimized/cpu/ops/tier.hpp"
#include "optimized/cpu/ops/train_memory.hpp"

namespace dsa::cpu {

struct IndexIn {
  View<const float, 3> q;             // (Q, H, D)
  View<const float, 2> k;             // (T, D)
  View<const float, 2> w;             // (Q, H)  no data: every weight is 1 (HeadWeights::uniform)
  View<const std::int32_t, 1> begin;  // (T)     first row of each row's document
  double dot_scale = 1;               // c, positive
  double weight_scale = 1;            // b
  bool relu = true;                   // or no activation

  /// The row of the first query.
  Index first() const { return k.shape[0] - q.shape[0]; }
};
struct IndexGradient {
  View<float, 3> d_q;  // (Q, H, D)  written
  View<float, 2> d_k;  // (T, D)     written
  View<float, 2> d_w;  // (Q, H)     written; no data: not wanted, as where the weights are uniform
};

/// chosen of row t = the min(K, visible) keys of largest scores, ascending, then -1; of equal
/// scores, the lower index. Error: a score is NaN; shapes disagree.
void index_topk(Cpu, View<std::int32_t, 2> chosen,  // (Q, K)  written
                const IndexIn&, TrainMemory&);

/// d_scores of the chosen keys; all others have none.
void index_scores_backward(Cpu, IndexGradient, const IndexIn&,
                           View<const float, 2> d_scores,       // (Q, K)
                           View<const std::int32_t, 2> chosen,  // (Q, K)  ascending, then -1
                           TrainMemory&);

}  // namespace dsa::cpu
