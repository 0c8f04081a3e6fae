// reference/ops/adamw.hpp — one step of the optimiser on one parameter.
//
//   g  = gradient x clip_factor ( + weight_decay p, where it is not decoupled )
//   m  = beta1 m + (1 - beta1) g             v  = beta2 v + (1 - beta2) g^2
//   m^ = m / (1 - beta1^n)                   v^ = v / (1 - beta2^n)        n: this step, from 1
//   p  = p - lr weight_decay p               where it is decoupled
//   p  = p - lr m^ / ( sqrt(v^) + eps )      or m^ / sqrt( v^ + eps )
//
// Adam: arXiv 1412.6980, algorithm 1. Decoupled decay: arXiv 1711.05101, algorithm 2, as
// torch.optim.AdamW writes it (the decay has no schedule of its own).
#pragma once

#include <span>

#include "core/recipe.hpp"

namespace dsa::reference {

template <class Real>
struct AdamWState {
  std::span<Real> p, m, v;  // (n) each: the parameter and its moments
  bool decayed = true;      // weight decay applies to this parameter
};

/// `steps`: how many were taken, this one included. gradient (n), before the clip.
template <class Real>
void adamw_step(const AdamWState<Real>&, std::span<const Real> gradient, const AdamW&, Real lr,
                Real clip_factor, Index steps);

/// What every gradient is multiplied with: min(1, max_norm / (norm + eps)), or 1 without a limit.
template <class Real>
Real clip_factor(Real norm, const Clip&);

}  // namespace dsa::reference
