// reference/ops/norms.hpp — the two normalisations.
//
//   rmsnorm:    y[t,c] = g[c] x[t,c] / sqrt( mean_c x[t,c]^2 + eps )
//   layernorm:  y[t,c] = g[c] (x[t,c] - mean_c x[t,:]) / sqrt( var_c x[t,:] + eps ) + b[c]
//
// var is the biased variance, as in torch.nn.LayerNorm.
#pragma once

#include "core/tensor.hpp"

namespace dsa::reference {

template <class Real>
void rmsnorm(View<Real, 2> y,        // (T, C)  out
             View<const Real, 2> x,  // (T, C)
             View<const Real, 1> g,  // (C)
             double eps);

template <class Real>
void layernorm(View<Real, 2> y,        // (T, C)  out
               View<const Real, 2> x,  // (T, C)
               View<const Real, 1> g,  // (C)
               View<const Real, 1> b,  // (C)
               double eps);

}  // namespace dsa::reference
