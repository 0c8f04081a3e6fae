#include "reference/ops/indexer_scores.hpp"

#include <algorithm>
#include <limits>

#include "core/threads.hpp"
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

  parallel_for(T, visible.keys() * H * (10 + D / 4), [&](Index t) {
    for (Index s = 0; s < S; ++s) {
      if (!visible.sees(t, s)) {
        scores(t, s) = -std::numeric_limits<Real>::infinity();
        continue;
      }
      Real sum = 0;
      for (Index h = 0; h < H; ++h) {
        const Real a = dot_scale * dot(q[t][h].data, k[s].data, D);
        sum += weight_scale * w(t, h) * (relu ? std::max<Real>(0, a) : a);
      }
      scores(t, s) = sum;
    }
  });
}

template <class Real>
void indexer_scores_backward(IndexerScoresGradient<Real> d, const IndexerScoresInputs<Real>& in,
                             View<const Real, 2> d_scores, const Indexer& indexer,
                             const Visibility& visible) {
  const Index T = in.q.shape[0], H = in.q.shape[1], D = in.q.shape[2], S = in.k.shape[0];
  expect_shape("d_q", d.d_q, {T, H, D});
  expect_shape("d_k", d.d_k, {S, D});
  expect_shape("d_w", d.d_w, {T, H});
  expect_shape("d_scores", d_scores, {T, S});
  const bool relu = indexer.activation == Indexer::Activation::relu;
  const Real dot_scale = static_cast<Real>(indexer.dot_scale),
             weight_scale = static_cast<Real>(indexer.weight_scale);
  // A key that was not chosen has gradient 0, and then adds nothing.
  const auto counts = [&](Index t, Index s) { return visible.sees(t, s) && d_scores(t, s) != 0; };
  const auto dot_of = [&](Index t, Index h, Index s) {
    return dot_scale * dot(in.q[t][h].data, in.k[s].data, D);
  };

  // Two sweeps, by query and by key, so that every sum has one writer and one order.
  parallel_for(T, S * H * (10 + D / 2), [&](Index t) {
    for (Index s = 0; s < S; ++s) {
      if (!counts(t, s)) continue;
      for (Index h = 0; h < H; ++h) {
        const Real a = dot_of(t, h, s);
        if (relu && !(a > 0)) continue;
        d.d_w(t, h) += weight_scale * a * d_scores(t, s);
        const Real d_a = weight_scale * in.w(t, h) * d_scores(t, s);
        add_scaled(d.d_q[t][h].data, dot_scale * d_a, in.k[s].data, D);
      }
    }
  });
  parallel_for(S, T * H * (10 + D / 2), [&](Index s) {
    for (Index t = 0; t < T; ++t) {
      if (!counts(t, s)) continue;
      for (Index h = 0; h < H; ++h) {
        if (relu && !(dot_of(t, h, s) > 0)) continue;
        const Real d_a = weight_scale * in.w(t, h) * d_scores(t, s);
        add_scaled(d.d_k[s].data, dot_scale * d_a, in.q[t][h].data, D);
      }
    }
  });
}

#define DSA_INSTANTIATE_FORWARD(Real)                                                   \
  template void indexer_scores(View<Real, 2>, View<const Real, 3>, View<const Real, 2>, \
                               View<const Real, 2>, const Indexer&, const Visibility&);
#define DSA_INSTANTIATE(Real)                                                                  \
  DSA_INSTANTIATE_FORWARD(Real)                                                                \
  template void indexer_scores_backward(IndexerScoresGradient<Real>,                           \
                                        const IndexerScoresInputs<Real>&, View<const Real, 2>, \
                                        const Indexer&, const Visibility&);
DSA_INSTANTIATE(double)
DSA_INSTANTIATE(long double)
DSA_INSTANTIATE_FORWARD(Dual)

}  // namespace dsa::reference
