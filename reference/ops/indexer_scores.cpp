#include "reference/ops/indexer_scores.hpp"

#include <algorithm>
#include <limits>

#include "reference/ops/dot.hpp"

namespace dsa::reference {

template <class Real>
void indexer_scores(View<Real, 2> scores, View<const Real, 3> q, View<const Real, 2> k,
                    View<const Real, 2> w, const Indexer& indexer, const Visibility& visible) {
  const Index T = q.shape[0], H = q.shape[1], D = q.shape[2], S = k.shape[0];
  expect_shape("scores", scores, {T, S});
  expect_shape("k", k, {S, D});
  expect_shape("w", w, {T, H});
  require(S <= visible.keys() && visible.first + T <= visible.keys(),
          "the visibility is of " + std::to_string(visible.keys()) + " keys, expected at least " +
              std::to_string(std::max(S, visible.first + T)));
  const bool relu = indexer.activation == Indexer::Activation::relu;
  const Real dot_scale = static_cast<Real>(indexer.dot_scale),
             weight_scale = static_cast<Real>(indexer.weight_scale);

#pragma omp parallel for schedule(dynamic)
  for (Index t = 0; t < T; ++t)
    for (Index s = 0; s < S; ++s) {
      if (!visible.sees(t, s)) {
        scores(t, s) = -std::numeric_limits<Real>::infinity();
        continue;
      }
      Real sum = 0;
      for (Index h = 0; h < H; ++h) {
        const Real a = dot_scale * dot(q[t][h].data, k[s].data, D);
        sum += weight_scale * w(t, h) * (relu ? std::max<Real>(a, 0) : a);
      }
      scores(t, s) = sum;
    }
}

template void indexer_scores(View<double, 2>, View<const double, 3>, View<const double, 2>,
                             View<const double, 2>, const Indexer&, const Visibility&);
template void indexer_scores(View<long double, 2>, View<const long double, 3>,
                             View<const long double, 2>, View<const long double, 2>, const Indexer&,
                             const Visibility&);

}  // namespace dsa::reference
