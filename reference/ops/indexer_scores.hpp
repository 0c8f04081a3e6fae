// reference/ops/indexer_scores.hpp — how much query t wants to look at key s.
//
//   scores[t,s] = sum_h  H^-1/2 w[t,h] * relu( D^-1/2 q[t,h,:] . k[s,:] )   for keys t may see
//               = -inf                                                     for all others
//
// DeepSeek-V3.2 (arXiv 2512.02556), eq. (1). The two scales and the activation are the Indexer's.
#pragma once

#include "core/config.hpp"
#include "core/tensor.hpp"
#include "reference/ops/visibility.hpp"

namespace dsa::reference {

template <class Real>
void indexer_scores(View<Real, 2> scores,   // (T, S)     out
                    View<const Real, 3> q,  // (T, H, D)
                    View<const Real, 2> k,  // (S, D)     one key, shared by all heads
                    View<const Real, 2> w,  // (T, H)     may be negative
                    const Indexer&, const Visibility&);

/// What the scores are made of.
template <class Real>
struct IndexerScoresInputs {
  View<const Real, 3> q;  // (T, H, D)
  View<const Real, 2> k;  // (S, D)
  View<const Real, 2> w;  // (T, H)
};
template <class Real>
struct IndexerScoresGradient {
  View<Real, 3> d_q;  // (T, H, D)  added to
  View<Real, 2> d_k;  // (S, D)     added to
  View<Real, 2> d_w;  // (T, H)     added to
};

/// forward: scores += b w relu(a),  a = c q.k,  b = H^-1/2, c = D^-1/2
/// so:      d_w += b relu(a) d_scores,   d_a = b w d_scores where a > 0,
///          d_q += c d_a k,   d_k += c d_a q
/// The subgradient of relu at 0 is 0, as torch takes it. d_scores of a key that a query may not see
/// is not read.
template <class Real>
void indexer_scores_backward(IndexerScoresGradient<Real>, const IndexerScoresInputs<Real>&,
                             View<const Real, 2> d_scores,  // (T, S)
                             const Indexer&, const Visibility&);

}  // namespace dsa::reference
