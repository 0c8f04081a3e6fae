// Both forms run over heads: what a head owns (its keys, values, projections) has one writer, and
// what the heads share is summed in the order of the heads afterwards. No sum depends on the number
// of threads.
#include <vector>

#include "core/threads.hpp"
#include "reference/ops/dot.hpp"
#include "reference/ops/mla.hpp"
#include "reference/ops/mla_keys.hpp"

namespace dsa::reference {
namespace {

/// d_z from d_p, in place: d_z_s = p_s ( d_p_s - sum_r p_r d_p_r ).
template <class Real>
void softmax_backward(std::vector<Real>& d, const std::vector<Real>& p) {
  Real delta = 0;
  for (std::size_t i = 0; i < p.size(); ++i) delta += p[i] * d[i];
  for (std::size_t i = 0; i < p.size(); ++i) d[i] = p[i] * (d[i] - delta);
}

/// shared += sum_n of_head[n], head after head.
template <class Real>
void add_heads(View<Real, 2> shared, View<const Real, 3> of_head) {
  const Index N = of_head.shape[0], S = shared.shape[0], width = shared.shape[1];
  parallel_for(S, N * width / 2, [&](Index s) {
    for (Index n = 0; n < N; ++n) add_scaled(shared[s].data, Real(1), of_head[n][s].data, width);
  });
}

}  // namespace

template <class Real>
void mla_expanded_backward(const MlaExpandedGradient<Real>& d, const MlaExpandedInputs<Real>& in,
                           View<const Real, 3> d_out) {
  const Index T = in.q_nope.shape[0], N = in.q_nope.shape[1], B = in.q_nope.shape[2],
              P = in.q_rope.shape[2], S = in.kv.shape[0], U = d_out.shape[2];
  expect_shape("d_out", d_out, {T, N, U});
  expect_shape("kv", in.kv, {S, N, B + U});
  expect_shape("d_q_nope", d.d_q_nope, {T, N, B});
  expect_shape("d_q_rope", d.d_q_rope, {T, N, P});
  expect_shape("d_kv", d.d_kv, {S, N, B + U});
  expect_shape("d_k_rope", d.d_k_rope, {S, P});
  expect_keys(in.chosen, T, S);
  const Real scale = static_cast<Real>(in.scale);

  Tensor<Real, 3> d_k_rope({N, S, P});  // of each head
  parallel_for(N, T * in.chosen.shape[1] * (20 + 2 * (B + P + U)), [&](Index n) {
    for (Index t = 0; t < T; ++t) {
      const std::vector<Index> keys = keys_of(in.chosen[t]);
      std::vector<Real> p(keys.size()), d_z(keys.size());
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const Real* k = in.kv[keys[i]][n].data;
        p[i] = scale * (dot(in.q_nope[t][n].data, k, B) +
                        dot(in.q_rope[t][n].data, in.k_rope[keys[i]].data, P));
        d_z[i] = dot(d_out[t][n].data, k + B, U);  // d_p so far
      }
      softmax(p.data(), static_cast<Index>(keys.size()));
      softmax_backward(d_z, p);
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const Index s = keys[i];
        const Real d_dot = scale * d_z[i];
        add_scaled(d.d_q_nope[t][n].data, d_dot, in.kv[s][n].data, B);
        add_scaled(d.d_q_rope[t][n].data, d_dot, in.k_rope[s].data, P);
        add_scaled(d.d_kv[s][n].data, d_dot, in.q_nope[t][n].data, B);
        add_scaled(d.d_kv[s][n].data + B, p[i], d_out[t][n].data, U);
        add_scaled(d_k_rope.view()[n][s].data, d_dot, in.q_rope[t][n].data, P);
      }
    }
  });
  add_heads<Real>(d.d_k_rope, d_k_rope);
}

template <class Real>
void mla_absorbed_backward(const MlaAbsorbedGradient<Real>& d, const MlaAbsorbedInputs<Real>& in,
                           View<const Real, 3> d_out) {
  const Index T = in.q_nope.shape[0], N = in.q_nope.shape[1], B = in.q_nope.shape[2],
              P = in.q_rope.shape[2], S = in.c_kv.shape[0], R = in.c_kv.shape[1],
              U = d_out.shape[2];
  expect_shape("d_out", d_out, {T, N, U});
  expect_shape("kv_b", in.kv_b, {N, B + U, R});
  expect_shape("d_q_nope", d.d_q_nope, {T, N, B});
  expect_shape("d_q_rope", d.d_q_rope, {T, N, P});
  expect_shape("d_c_kv", d.d_c_kv, {S, R});
  expect_shape("d_k_rope", d.d_k_rope, {S, P});
  expect_shape("d_kv_b", d.d_kv_b, {N, B + U, R});
  expect_keys(in.chosen, T, S);
  const Real scale = static_cast<Real>(in.scale);

  Tensor<Real, 3> d_k_rope({N, S, P}), d_c_kv({N, S, R});  // of each head
  parallel_for(N, T * in.chosen.shape[1] * (20 + 4 * R), [&](Index n) {
    for (Index t = 0; t < T; ++t) {
      const std::vector<Index> keys = keys_of(in.chosen[t]);
      const std::vector<Real> zeros(static_cast<std::size_t>(R));
      std::vector<Real> p(keys.size()), d_z(keys.size()), q_latent = zeros, o_latent = zeros,
                                                          d_o_latent = zeros, d_q_latent = zeros;
      for (Index b = 0; b < B; ++b)
        add_scaled(q_latent.data(), in.q_nope(t, n, b), in.kv_b[n][b].data, R);
      for (Index u = 0; u < U; ++u)
        add_scaled(d_o_latent.data(), d_out(t, n, u), in.kv_b[n][B + u].data, R);
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const Real* c = in.c_kv[keys[i]].data;
        p[i] = scale *
               (dot(q_latent.data(), c, R) + dot(in.q_rope[t][n].data, in.k_rope[keys[i]].data, P));
        d_z[i] = dot(d_o_latent.data(), c, R);  // d_p so far
      }
      softmax(p.data(), static_cast<Index>(keys.size()));
      softmax_backward(d_z, p);
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const Index s = keys[i];
        const Real d_dot = scale * d_z[i];
        add_scaled(o_latent.data(), p[i], in.c_kv[s].data, R);
        add_scaled(d_q_latent.data(), d_dot, in.c_kv[s].data, R);
        add_scaled(d.d_q_rope[t][n].data, d_dot, in.k_rope[s].data, P);
        add_scaled(d_c_kv.view()[n][s].data, p[i], d_o_latent.data(), R);
        add_scaled(d_c_kv.view()[n][s].data, d_dot, q_latent.data(), R);
        add_scaled(d_k_rope.view()[n][s].data, d_dot, in.q_rope[t][n].data, P);
      }
      for (Index b = 0; b < B; ++b) {
        d.d_q_nope(t, n, b) += dot(in.kv_b[n][b].data, d_q_latent.data(), R);
        add_scaled(d.d_kv_b[n][b].data, in.q_nope(t, n, b), d_q_latent.data(), R);
      }
      for (Index u = 0; u < U; ++u)
        add_scaled(d.d_kv_b[n][B + u].data, d_out(t, n, u), o_latent.data(), R);
    }
  });
  add_heads<Real>(d.d_k_rope, d_k_rope);
  add_heads<Real>(d.d_c_kv, d_c_kv);
}

#define DSA_INSTANTIATE(Real)                                                               \
  template void mla_expanded_backward(const MlaExpandedGradient<Real>&,                     \
                                      const MlaExpandedInputs<Real>&, View<const Real, 3>); \
  template void mla_absorbed_backward(const MlaAbsorbedGradient<Real>&,                     \
                                      const MlaAbsorbedInputs<Real>&, View<const Real, 3>);
DSA_INSTANTIATE(double)
DSA_INSTANTIATE(long double)

}  // namespace dsa::reference
