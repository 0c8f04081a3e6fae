#include "reference/ops/mla.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/threads.hpp"
#include "reference/dual.hpp"
#include "reference/ops/dot.hpp"
#include "reference/ops/mla_keys.hpp"

namespace dsa::reference {

template <class Real>
void softmax(Real* p, Index n) {
  using std::exp;
  if (n == 0) return;
  const Real largest = *std::max_element(p, p + n);
  Real sum = 0;
  for (Index i = 0; i < n; ++i) {
    p[i] = exp(p[i] - largest);
    sum += p[i];
  }
  for (Index i = 0; i < n; ++i) p[i] /= sum;
}

template <class Real>
void mla_expanded(View<Real, 3> out, View<const Real, 3> q_nope, View<const Real, 3> q_rope,
                  View<const Real, 3> kv, View<const Real, 2> k_rope, View<const Index, 2> chosen,
                  double scale) {
  const Index T = q_nope.shape[0], N = q_nope.shape[1], B = q_nope.shape[2], P = q_rope.shape[2],
              S = kv.shape[0], U = out.shape[2];
  expect_shape("q_rope", q_rope, {T, N, P});
  expect_shape("kv", kv, {S, N, B + U});
  expect_shape("k_rope", k_rope, {S, P});
  expect_shape("out", out, {T, N, U});
  expect_keys(chosen, T, S);

  // Head by head: one head's keys and values fit into a cache that all of them would not.
  parallel_for(N * T, chosen.shape[1] * (20 + (B + P + U) / 2), [&](Index at) {
    const Index n = at / T, t = at % T;
    const std::vector<Index> keys = keys_of(chosen[t]);
    std::vector<Real> p(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i)
      p[i] = static_cast<Real>(scale) * (dot(q_nope[t][n].data, kv[keys[i]][n].data, B) +
                                         dot(q_rope[t][n].data, k_rope[keys[i]].data, P));
    softmax(p.data(), static_cast<Index>(keys.size()));
    for (Index u = 0; u < U; ++u) out(t, n, u) = 0;
    for (std::size_t i = 0; i < keys.size(); ++i)
      add_scaled(out[t][n].data, p[i], kv[keys[i]][n].data + B, U);
  });
}

template <class Real>
void mla_absorbed(View<Real, 3> out, View<const Real, 3> q_nope, View<const Real, 3> q_rope,
                  View<const Real, 2> c_kv, View<const Real, 2> k_rope, View<const Real, 3> kv_b,
                  View<const Index, 2> chosen, double scale) {
  const Index T = q_nope.shape[0], N = q_nope.shape[1], B = q_nope.shape[2], P = q_rope.shape[2],
              S = c_kv.shape[0], R = c_kv.shape[1], U = out.shape[2];
  expect_shape("q_rope", q_rope, {T, N, P});
  expect_shape("k_rope", k_rope, {S, P});
  expect_shape("kv_b", kv_b, {N, B + U, R});
  expect_shape("out", out, {T, N, U});
  expect_keys(chosen, T, S);

  parallel_for(T, N * (B * R / 4 + chosen.shape[1] * (20 + R / 2)), [&](Index t) {
    const std::vector<Index> keys = keys_of(chosen[t]);
    std::vector<Real> p(keys.size()), q_latent(static_cast<std::size_t>(R)),
        o_latent(static_cast<std::size_t>(R));
    for (Index n = 0; n < N; ++n) {
      std::fill(q_latent.begin(), q_latent.end(), Real(0));
      std::fill(o_latent.begin(), o_latent.end(), Real(0));
      for (Index b = 0; b < B; ++b)  // q~ = W_UK^T q_nope
        add_scaled(q_latent.data(), q_nope(t, n, b), kv_b[n][b].data, R);
      for (std::size_t i = 0; i < keys.size(); ++i)
        p[i] = static_cast<Real>(scale) * (dot(q_latent.data(), c_kv[keys[i]].data, R) +
                                           dot(q_rope[t][n].data, k_rope[keys[i]].data, P));
      softmax(p.data(), static_cast<Index>(keys.size()));
      for (std::size_t i = 0; i < keys.size(); ++i)  // o~ = sum_s p c_kv(s)
        add_scaled(o_latent.data(), p[i], c_kv[keys[i]].data, R);
      for (Index u = 0; u < U; ++u)  // o = W_UV o~
        out(t, n, u) = dot(kv_b[n][B + u].data, o_latent.data(), R);
    }
  });
}

#define DSA_INSTANTIATE(Real)                                                                \
  template void softmax(Real*, Index);                                                       \
  template void mla_expanded(View<Real, 3>, View<const Real, 3>, View<const Real, 3>,        \
                             View<const Real, 3>, View<const Real, 2>, View<const Index, 2>, \
                             double);                                                        \
  template void mla_absorbed(View<Real, 3>, View<const Real, 3>, View<const Real, 3>,        \
                             View<const Real, 2>, View<const Real, 2>, View<const Real, 3>,  \
                             View<const Index, 2>, double);
DSA_INSTANTIATE(double)
DSA_INSTANTIATE(long double)
DSA_INSTANTIATE(Dual)

}  // namespace dsa::reference
