// reference/ops/topk_select.hpp — the K largest of each row: what is selected, and what is routed
// to.
//
//   chosen[t,:] = the min(K, visible) subscripts of largest scores[t,:], best first, then -1
//
// A score of -inf is invisible and never chosen. Equal scores: the lower subscript first; this
// project's rule (torch.topk and lax.top_k promise none). A NaN is an Error.
#pragma once

#include "core/tensor.hpp"

namespace dsa::reference {

template <class Real>
void topk_select(View<Index, 2> chosen,        // (T, K)  out
                 View<const Real, 2> scores);  // (T, S)

}  // namespace dsa::reference
