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
#include <string>
#include <string_view>
#include <vector>

#include "core/recording.hpp"
#include "reference/ops/mla.hpp"

namespace dsa::reference {

/// A guard against log 0 or division by 0: x becomes max( x + added, least ).
struct Guard {
  double added = 0, least = 0;
  friend bool operator==(const Guard&, const Guard&) = default;
};

/// One trainer's reading of the indexer's loss.
struct KlSemantics {
  enum class Keys { chosen, visible };
  enum class Reduction { mean, sum };
  /// What of the indexer's input is a constant to the loss: hidden states and query latent, the
  /// latent alone, or neither. The teacher is a constant in every reading.
  enum class Detach { inputs, query_latent, nothing };

  Keys teacher_softmax = Keys::chosen;  // the keys over which each head's softmax runs
  Keys teacher_keys = Keys::chosen;     // the keys that p is restricted to
  Keys student_keys = Keys::chosen;     // the keys over which q is a softmax
  bool student_scaled = true;           // q sees scores with H^-1/2 D^-1/2, or without
  Guard l1, log_p, log_q;               // in the sum of u, under log p, under log q
  Reduction tokens = Reduction::mean;
  Reduction layers = Reduction::mean;  // over the layers that compute an index
  bool padding_counted = false;        // padding is a segment of its own, and counted
  Detach detach = Detach::inputs;

  friend bool operator==(const KlSemantics&, const KlSemantics&) = default;
};

/// "paper", "maxtext", "megatron", "hf-fork", "prime-rl", "xtuner". An unknown name is an Error
/// that lists them.
///
/// paper: the paper writes sums over tokens and layers. A reduction is a factor of the coefficient,
/// and files hold means: both are means here.
KlSemantics semantics_named(std::string_view);
std::string semantics_names();

/// The same reading in the dense warm-up: teacher and student over every visible key.
KlSemantics in_warmup(KlSemantics);

/// A reading whose teacher has keys that its student lacks has an infinite loss: an Error.
void check(const KlSemantics&);

/// One sequence of a batch as this reading sees it, before join(): where padding is counted, it
/// becomes a document of its own, at its places in the sequence.
Sequence seen_by(const KlSemantics&, Sequence sequence);

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
