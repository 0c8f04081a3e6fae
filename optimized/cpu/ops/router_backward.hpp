// optimized/cpu/ops/router_backward.hpp — the router in training: its scores, and the way back from
// the experts' weights and the balance loss. Definition: reference/ops/{router,losses}.hpp.
//
// The choice of experts is a constant: no gradient passes through the correction bias or the
// groups.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/config.hpp"
#include "optimized/cpu/ops/tier.hpp"
#include "optimized/cpu/ops/train_memory.hpp"

namespace dsa::cpu {

/// s = sigmoid(z)  or  softmax_e z
void router_scores(Cpu, View<float, 2> s,        // (T, E)  out
                   View<const float, 2> logits,  // (T, E)
                   Router::Scoring);

/// forward: w_i = scale s_i / D,  D = sum_j s_j + 1e-20 (or 1 without norm_topk_prob)
/// so:      d_s[experts_i] = scale ( d_w_i - sum_j d_w_j s_j / D ) / D  (or scale d_w_i)
void router_weights_backward(Cpu, View<float, 2> d_s,              // (T, E)  out
                             View<const float, 2> s,               // (T, E)
                             View<const std::int32_t, 2> experts,  // (T, k)
                             View<const float, 2> d_weights,       // (T, k)
                             const Config&);

/// What the balance loss reads: documents are packed, `begin` is the first row of each row's.
struct BalanceIn {
  View<const float, 2> s;               // (T, E)
  View<const std::int32_t, 2> experts;  // (T, k)
  View<const std::int32_t, 1> begin;    // (T)
};

/// forward: for each document of T rows, sum_e f_e P_e,  f_e = E/(k T) #{t : e in experts(t)},
///          P_e = 1/T sum_t s[t,e] / sum_e' s[t,e']
/// so:      with a = s / sum_e s,  d_s[t,e] += factor / (T sum_e s) ( f_e - sum_e' a[t,e'] f_e' )
/// Returns the sum over documents. d_s without data: the loss alone.
double balance_loss(Cpu, View<float, 2> d_s, const BalanceIn&, double factor, TrainMemory&);

/// forward: s = sigmoid(z)         so: d_z = d_s s (1 - s)
/// forward: s = softmax_e z        so: d_z = s ( d_s - sum_e d_s s )
/// In place: d_s becomes d_z.
void router_scores_backward(Cpu, View<float, 2> d_s,  // (T, E)  in and out
                            View<const float, 2> s,   // (T, E)
                            Router::Scoring);

}  // namespace dsa::cpu
