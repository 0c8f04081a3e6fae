#include "reference/ops/index_kl.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/threads.hpp"
#include "reference/dual.hpp"
#include "reference/ops/dot.hpp"
#include "reference/ops/mla_keys.hpp"

namespace dsa::reference {
namespace {

using Reduction = KlSemantics::Reduction;

template <class Real>
Real guarded(const Guard& guard, Real x) {
  return std::max<Real>(x + static_cast<Real>(guard.added), static_cast<Real>(guard.least));
}

/// p and q of one row, key by key of the student.
template <class Real>
struct Row {
  std::vector<Index> keys;
  std::vector<Real> p, q;

  Row(const KlInputs<Real>& in, const KlSemantics& semantics, Index t) : keys(keys_of(in.keys[t])) {
    Real sum = 0;
    for (Index s = 0; s < in.u.shape[1]; ++s) sum += in.u(t, s);
    for (Index s : keys) {
      p.push_back(in.u(t, s) / guarded(semantics.l1, sum));
      q.push_back(in.scale * in.scores(t, s));
    }
    softmax(q.data(), static_cast<Index>(q.size()));
  }
};

/// Where nothing guards it, log q is taken of the scores and cannot underflow.
template <class Real>
std::vector<Real> log_softmax(const KlInputs<Real>& in, const std::vector<Index>& keys, Index t) {
  using std::exp, std::log;
  std::vector<Real> z;
  for (Index s : keys) z.push_back(in.scale * in.scores(t, s));
  const Real largest = *std::max_element(z.begin(), z.end());
  Real sum = 0;
  for (Real x : z) sum += exp(x - largest);
  for (Real& x : z) x = x - largest - log(sum);
  return z;
}

}  // namespace

template <class Real>
std::vector<Real> kl_weights(const KlSemantics& semantics, const Sequence& sequence) {
  std::vector<Real> weights;
  Real counted = 0;
  for (Index document : sequence.documents) {
    weights.push_back(document >= 0 ? Real(1) : Real(0));
    counted += weights.back();
  }
  if (semantics.tokens == Reduction::mean && counted > 0)
    for (Real& w : weights) w /= counted;
  return weights;
}

template <class Real>
void attention_mass(View<Real, 2> u, const MlaExpandedInputs<Real>& in, View<const Index, 2> kept) {
  const Index T = in.q_nope.shape[0], N = in.q_nope.shape[1], B = in.q_nope.shape[2],
              P = in.q_rope.shape[2], S = in.kv.shape[0];
  expect_shape("u", u, {T, S});
  expect_keys(in.chosen, T, S);
  expect_keys(kept, T, S);
  parallel_for(T, N * in.chosen.shape[1] * (20 + (B + P) / 2), [&](Index t) {
    const std::vector<Index> keys = keys_of(in.chosen[t]);
    std::vector<Real> a(keys.size()), mass(static_cast<std::size_t>(S));
    for (Index n = 0; n < N; ++n) {
      for (std::size_t i = 0; i < keys.size(); ++i)
        a[i] =
            static_cast<Real>(in.scale) * (dot(in.q_nope[t][n].data, in.kv[keys[i]][n].data, B) +
                                           dot(in.q_rope[t][n].data, in.k_rope[keys[i]].data, P));
      softmax(a.data(), static_cast<Index>(keys.size()));
      for (std::size_t i = 0; i < keys.size(); ++i) mass[static_cast<std::size_t>(keys[i])] += a[i];
    }
    for (Index s = 0; s < S; ++s) u(t, s) = 0;
    for (Index s : keys_of(kept[t])) u(t, s) = mass[static_cast<std::size_t>(s)];
  });
}

template <class Real>
Real index_kl(const KlInputs<Real>& in, std::span<const Real> weights,
              const KlSemantics& semantics) {
  using std::log;
  check(semantics);
  const bool exact = semantics.log_q == Guard{};
  Real loss = 0;
  for (Index t = 0; t < in.scores.shape[0]; ++t) {
    const Row<Real> row(in, semantics, t);
    if (row.keys.empty()) continue;
    const std::vector<Real> log_q = log_softmax(in, row.keys, t);
    for (std::size_t i = 0; i < row.keys.size(); ++i) {
      if (row.p[i] == 0) continue;  // 0 log 0 = 0
      const Real lq = exact ? log_q[i] : log(guarded(semantics.log_q, row.q[i]));
      loss += weights[static_cast<std::size_t>(t)] * row.p[i] *
              (log(guarded(semantics.log_p, row.p[i])) - lq);
    }
  }
  return loss;
}

template <class Real>
void index_kl_backward(View<Real, 2> d_scores, const KlInputs<Real>& in,
                       std::span<const Real> weights, const KlSemantics& semantics) {
  check(semantics);
  expect_shape("d_scores", d_scores, in.scores.shape);
  const Guard& guard = semantics.log_q;
  for (Index t = 0; t < in.scores.shape[0]; ++t) {
    const Row<Real> row(in, semantics, t);
    const std::size_t n = row.keys.size();
    std::vector<Real> r(n);
    Real sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const Real q = row.q[i] + static_cast<Real>(guard.added);
      const bool clamped = q < static_cast<Real>(guard.least);  // its derivative is 0
      if (!clamped) r[i] = guard.added == 0 ? -row.p[i] : -row.p[i] * (row.q[i] / q);
      sum += r[i];
    }
    for (std::size_t i = 0; i < n; ++i)
      d_scores(t, row.keys[i]) +=
          weights[static_cast<std::size_t>(t)] * in.scale * (r[i] - row.q[i] * sum);
  }
}

#define DSA_INSTANTIATE_FORWARD(Real)                                         \
  template std::vector<Real> kl_weights(const KlSemantics&, const Sequence&); \
  template void attention_mass(View<Real, 2>, const MlaExpandedInputs<Real>&, \
                               View<const Index, 2>);                         \
  template Real index_kl(const KlInputs<Real>&, std::span<const Real>, const KlSemantics&);
#define DSA_INSTANTIATE(Real)                                                                  \
  DSA_INSTANTIATE_FORWARD(Real)                                                                \
  template void index_kl_backward(View<Real, 2>, const KlInputs<Real>&, std::span<const Real>, \
                                  const KlSemantics&);
DSA_INSTANTIATE(double)
DSA_INSTANTIATE(long double)
DSA_INSTANTIATE_FORWARD(Dual)

}  // namespace dsa::reference
