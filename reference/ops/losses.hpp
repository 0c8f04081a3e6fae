// reference/ops/losses.hpp — what a model is trained on, besides the indexer (index_kl.hpp).
//
//   cross entropy   sum_t w[t] ( log sum_v exp z[t,v] - z[t,target[t]] )
//   balance         alpha sum_e f_e P_e,   f_e = E/(k T) #{t : e in experts(t)},
//                   P_e = 1/T sum_t s[t,e] / sum_e' s[t,e'];   V3 (arXiv 2412.19437) eq. (17)-(20)
//   router bias     b_e += gamma sign( mean load - load_e );   V3 section 2.1.2, no gradient
//
// A mean over counted tokens is a matter of weights: w[t] = 1 / count, 0 where nothing is counted.
#pragma once

#include <span>
#include <vector>

#include "core/recording.hpp"

namespace dsa::reference {

/// The token that row t must predict, `ahead` places later (1: the next one; 2: the first
/// multi-token-prediction block). -1 where that is outside the row's document, and for padding.
std::vector<Token> targets_of(const Sequence&, Index ahead);

/// Weights of a mean over the rows that have a target: each row's share (1 without `shares`: a
/// label mask of zeros and ones, or weights a token) over the sum of shares. Nothing counted: all
/// 0.
template <class Real>
std::vector<Real> mean_over_targets(std::span<const Token> targets,
                                    std::span<const double> shares = {});

/// A target of -1 is not counted. A target outside the vocabulary is an Error.
template <class Real>
Real cross_entropy(View<const Real, 2> logits,      // (T, V)
                   std::span<const Token> targets,  // (T)
                   std::span<const Real> weights);  // (T)

/// forward: w ( log sum_v exp z_v - z_target )      so: d_z_v += w ( softmax(z)_v - [v = target] )
template <class Real>
void cross_entropy_backward(View<Real, 2> d_logits,          // (T, V)  added to
                            View<const Real, 2> logits,      // (T, V)
                            std::span<const Token> targets,  // (T)
                            std::span<const Real> weights);  // (T)

/// Which experts the tokens of each document went to. Padding (document -1) is left out.
template <class Real>
struct BalanceInputs {
  View<const Real, 2> s;             // (T, E)
  View<const Index, 2> experts;      // (T, num_experts_per_tok)
  std::span<const Index> documents;  // (T)
};

/// The mean over documents of each one's balance loss: sequence-wise.
template <class Real>
Real balance_loss(const BalanceInputs<Real>&, Real alpha);

/// forward: alpha sum_e f_e P_e, f a count      so: with a = s / sum_e s,
///          d_s[t,e] += alpha / (T sum_e s[t,e]) ( f_e - sum_e' a[t,e'] f_e' )
template <class Real>
void balance_loss_backward(View<Real, 2> d_s, const BalanceInputs<Real>&, Real alpha);  // added to

/// e_score_correction_bias after a step: experts that were given more than the mean load lose
/// gamma, those given less gain it.
void update_router_bias(std::span<double> bias, std::span<const Index> load, double gamma);

}  // namespace dsa::reference
