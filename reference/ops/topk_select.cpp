#include "reference/ops/topk_select.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/threads.hpp"
#include "reference/dual.hpp"

namespace dsa::reference {

template <class Real>
void topk_select(View<Index, 2> chosen, View<const Real, 2> scores) {
  using std::isnan;
  const Index T = scores.shape[0], S = scores.shape[1], K = chosen.shape[1];
  expect_shape("chosen", chosen, {T, K});
  parallel_for(T, 20 * S, [&](Index t) {
    std::vector<Index> visible;
    for (Index s = 0; s < S; ++s) {
      if (isnan(scores(t, s)))
        throw Error("score (" + std::to_string(t) + ", " + std::to_string(s) +
                    ") is NaN: there is no order to select by");
      if (scores(t, s) > -std::numeric_limits<Real>::infinity()) visible.push_back(s);
    }
    const Index k = std::min(K, static_cast<Index>(visible.size()));
    std::partial_sort(visible.begin(), visible.begin() + k, visible.end(), [&](Index a, Index b) {
      return scores(t, a) != scores(t, b) ? scores(t, a) > scores(t, b) : a < b;
    });
    for (Index i = 0; i < K; ++i) chosen(t, i) = i < k ? visible[static_cast<std::size_t>(i)] : -1;
  });
}

template void topk_select(View<Index, 2>, View<const double, 2>);
template void topk_select(View<Index, 2>, View<const long double, 2>);
template void topk_select(View<Index, 2>, View<const Dual, 2>);

}  // namespace dsa::reference
