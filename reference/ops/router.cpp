#include "reference/ops/router.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "reference/dual.hpp"
#include "reference/ops/mla.hpp"

namespace dsa::reference {

template <class Real>
void router_scores(View<Real, 2> s, View<const Real, 2> z, Router::Scoring scoring) {
  using std::exp;
  const Index T = z.shape[0], E = z.shape[1];
  expect_shape("s", s, {T, E});
  for (Index t = 0; t < T; ++t) {
    for (Index e = 0; e < E; ++e)
      s(t, e) = scoring == Router::Scoring::sigmoid ? 1 / (1 + exp(-z(t, e))) : z(t, e);
    if (scoring == Router::Scoring::softmax) softmax(s[t].data, E);
  }
}

template <class Real>
void router_group_scores(View<Real, 2> groups, View<const Real, 2> choice, Router::Groups rule) {
  const Index T = choice.shape[0], E = choice.shape[1], G = groups.shape[1], size = E / G;
  expect_shape("groups", groups, {T, G});
  for (Index t = 0; t < T; ++t)
    for (Index g = 0; g < G; ++g) {
      Real best = -std::numeric_limits<Real>::infinity(), second = best;
      for (Index e = g * size; e < (g + 1) * size; ++e) {
        second = std::max(second, std::min(best, choice(t, e)));
        best = std::max(best, choice(t, e));
      }
      groups(t, g) = rule == Router::Groups::maximum ? best : best + second;
    }
}

template <class Real>
void router_drop_groups(View<Real, 2> choice, View<const Index, 2> kept, Index n_group,
                        double dropped) {
  const Index T = choice.shape[0], E = choice.shape[1], size = E / n_group;
  for (Index t = 0; t < T; ++t)
    for (Index e = 0; e < E; ++e)
      if (std::find(kept[t].begin(), kept[t].end(), e / size) == kept[t].end())
        choice(t, e) = static_cast<Real>(dropped);
}

template <class Real>
void router_weights(View<Real, 2> weights, View<const Real, 2> s, View<const Index, 2> experts,
                    bool normalise, double scale) {
  const Index T = s.shape[0], k = experts.shape[1];
  expect_shape("weights", weights, {T, k});
  for (Index t = 0; t < T; ++t) {
    Real sum = 0;
    for (Index i = 0; i < k; ++i) sum += weights(t, i) = s(t, experts(t, i));
    const Real divisor = normalise ? sum + static_cast<Real>(1e-20) : 1;
    for (Index i = 0; i < k; ++i)
      weights(t, i) = weights(t, i) / divisor * static_cast<Real>(scale);
  }
}

template <class Real>
void router_scores_backward(View<Real, 2> d_z, View<const Real, 2> s, View<const Real, 2> d_s,
                            Router::Scoring scoring) {
  const Index T = s.shape[0], E = s.shape[1];
  expect_shape("d_z", d_z, {T, E});
  expect_shape("d_s", d_s, {T, E});
  for (Index t = 0; t < T; ++t) {
    Real sum = 0;
    for (Index e = 0; e < E; ++e) sum += d_s(t, e) * s(t, e);
    for (Index e = 0; e < E; ++e)
      d_z(t, e) += scoring == Router::Scoring::sigmoid ? d_s(t, e) * s(t, e) * (1 - s(t, e))
                                                       : s(t, e) * (d_s(t, e) - sum);
  }
}

template <class Real>
void router_weights_backward(View<Real, 2> d_s, View<const Real, 2> s, View<const Index, 2> experts,
                             View<const Real, 2> d_weights, bool normalise, double scale) {
  const Index T = s.shape[0], E = s.shape[1], k = experts.shape[1];
  expect_shape("d_s", d_s, {T, E});
  expect_shape("d_weights", d_weights, {T, k});
  for (Index t = 0; t < T; ++t) {
    Real sum = 0, along = 0;
    for (Index i = 0; i < k; ++i) sum += s(t, experts(t, i));
    const Real divisor = normalise ? sum + static_cast<Real>(1e-20) : 1;
    for (Index i = 0; i < k && normalise; ++i)
      along += d_weights(t, i) * s(t, experts(t, i)) / divisor;
    for (Index i = 0; i < k; ++i)
      d_s(t, experts(t, i)) += static_cast<Real>(scale) * (d_weights(t, i) - along) / divisor;
  }
}

#define DSA_INSTANTIATE_FORWARD(Real)                                                          \
  template void router_scores(View<Real, 2>, View<const Real, 2>, Router::Scoring);            \
  template void router_group_scores(View<Real, 2>, View<const Real, 2>, Router::Groups);       \
  template void router_drop_groups(View<Real, 2>, View<const Index, 2>, Index, double);        \
  template void router_weights(View<Real, 2>, View<const Real, 2>, View<const Index, 2>, bool, \
                               double);
#define DSA_INSTANTIATE(Real)                                                                     \
  DSA_INSTANTIATE_FORWARD(Real)                                                                   \
  template void router_scores_backward(View<Real, 2>, View<const Real, 2>, View<const Real, 2>,   \
                                       Router::Scoring);                                          \
  template void router_weights_backward(View<Real, 2>, View<const Real, 2>, View<const Index, 2>, \
                                        View<const Real, 2>, bool, double);
DSA_INSTANTIATE(double)
DSA_INSTANTIATE(long double)
DSA_INSTANTIATE_FORWARD(Dual)

}  // namespace dsa::reference
