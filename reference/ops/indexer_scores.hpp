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

}  // namespace dsa::reference
