// reference/ops/index_kl.hpp — what the lightning indexer learns: to score keys as attention does.
//
//   u[t,s]  = sum_n a[t,n,s]                 a: main attention's softmax of head n
//   p[t,s]  = u[t,s] / sum_s u[t,s]          the teacher: a constant
//   q[t,:]  = softmax_s scores[t,:]          the student
//   loss    = sum_t w[t] sum_s p[t,s] ( log p[t,s] - log q[t,s] ),   0 log 0 = 0
//
// DeepSeek-V3.2 (arXiv 2512.02556), eq. (3) and (4). Trainers differ in the keys of either side, in
// guards against log 0, in reductions and in what is detached: KlSemantics holds those choices.
#pragma once

#include <span>
#include <vector>

#include "core/kl_semantics.hpp"
#include "reference/ops/mla.hpp"

namespace dsa::reference {

/// Weights of the reduction over tokens: padding 0.
template <class Real>
std::vector<Real> kl_weights(const KlSemantics&, const Sequence&);

/// u, the attention that every key of `kept` gets: the heads' softmax over in.chosen, summed.
template <class Real>
void attention_mass(View<Real, 2> u,  // (T, S)  out; 0 outside of `kept`
                    const MlaExpandedInputs<Real>& in,
                    View<const Index, 2> kept);  // (T, K)  -1: no key

template <class Real>
struct KlInputs {
  View<const Real, 2> scores;  // (T, S)  of the indexer
  View<const Real, 2> u;       // (T, S)  attention_mass
  View<const Index, 2> keys;   // (T, K)  the student's; -1: no key
  Real scale = 1;              // of the student: 1, or what undoes H^-1/2 D^-1/2
};

/// A row without keys has loss 0.
template <class Real>
Real index_kl(const KlInputs<Real>&, std::span<const Real> weights, const KlSemantics&);

/// forward: sum_s p ( log p - log g(q) ),  q = softmax_s( c scores ),  g the guard
/// so:      d_scores += w c ( r - q sum_s r ),   r = -p q g'(q) / g(q);
///          without guards, p and q summing to one: w c ( q - p )
template <class Real>
void index_kl_backward(View<Real, 2> d_scores,  // (T, S)  added to
                       const KlInputs<Real>&, std::span<const Real> weights, const KlSemantics&);

}  // namespace dsa::reference
