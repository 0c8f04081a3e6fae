// reference/ops/router.hpp — which experts a token goes to, and with what weight.
//
//   s[t,e]      = sigmoid(z[t,e])  (V3, V3.2, GLM)   or softmax_e z[t,:]  (V2);   z = gate x
//   choice[t,e] = s[t,e] + e_score_correction_bias[e]      takes part in the choice only
//   groups      = the topk_group groups of largest score: the sum of the two best choices in the
//                 group (V3), or the best one (V2); the choices of other groups are put to -inf
//                 (official code; HuggingFace's V2 and older V3: 0)
//   experts     = the num_experts_per_tok largest choices
//   weights     = s[experts] / (sum + 1e-20 if norm_topk_prob) * routed_scaling_factor
//
// DeepSeek-V3 (arXiv 2412.19437) eq. (12)-(16), section 2.1.2; inference/model.py, class Gate.
#pragma once

#include "core/config.hpp"
#include "core/tensor.hpp"

namespace dsa::reference {

template <class Real>
void router_scores(View<Real, 2> s,        // (T, E)  out
                   View<const Real, 2> z,  // (T, E)
                   Router::Scoring);

template <class Real>
void router_group_scores(View<Real, 2> groups,        // (T, G)  out
                         View<const Real, 2> choice,  // (T, E)
                         Router::Groups);

/// choice[t,e] of experts outside the kept groups becomes `dropped`.
template <class Real>
void router_drop_groups(View<Real, 2> choice,       // (T, E)  in and out
                        View<const Index, 2> kept,  // (T, topk_group)
                        Index n_group, double dropped);

template <class Real>
void router_weights(View<Real, 2> weights,         // (T, num_experts_per_tok)  out
                    View<const Real, 2> s,         // (T, E)
                    View<const Index, 2> experts,  // (T, num_experts_per_tok)
                    bool normalise, double scale);

/// forward: s = sigmoid(z)         so: d_z += d_s s (1 - s)
/// forward: s = softmax_e z        so: d_z += s ( d_s - sum_e d_s s )
/// The correction bias and the groups decide only: no gradient passes through them.
template <class Real>
void router_scores_backward(View<Real, 2> d_z,        // (T, E)  added to
                            View<const Real, 2> s,    // (T, E)
                            View<const Real, 2> d_s,  // (T, E)
                            Router::Scoring);

/// forward: w_i = scale s_i / D,  D = sum_j s_j + 1e-20 (or 1 without norm_topk_prob)
/// so:      d_s[experts_i] += scale ( d_w_i - sum_j d_w_j s_j / D ) / D  (or scale d_w_i)
template <class Real>
void router_weights_backward(View<Real, 2> d_s,              // (T, E)  added to
                             View<const Real, 2> s,          // (T, E)
                             View<const Index, 2> experts,   // (T, num_experts_per_tok)
                             View<const Real, 2> d_weights,  // (T, num_experts_per_tok)
                             bool normalise, double scale);

}  // namespace dsa::reference
