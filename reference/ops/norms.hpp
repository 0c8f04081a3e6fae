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

/// forward: y = g n,  n = x / r,  r = sqrt( mean_c x^2 + eps )
/// so:      d_g += sum_t d_y n,   d_x += ( d_n - n mean_c(d_n n) ) / r,  d_n = g d_y
template <class Real>
void rmsnorm_backward(View<Real, 2> d_x,        // (T, C)  added to
                      View<Real, 1> d_g,        // (C)     added to
                      View<const Real, 2> x,    // (T, C)
                      View<const Real, 1> g,    // (C)
                      View<const Real, 2> d_y,  // (T, C)
                      double eps);

/// What layernorm learns.
template <class Real>
struct LayernormGradient {
  View<Real, 1> d_g;  // (C)  added to
  View<Real, 1> d_b;  // (C)  added to
};

/// forward: y = g n + b,  n = (x - mean) / r,  r = sqrt( var + eps )
/// so:      d_b += sum_t d_y,  d_g += sum_t d_y n,
///          d_x += ( d_n - mean_c(d_n) - n mean_c(d_n n) ) / r,  d_n = g d_y
template <class Real>
void layernorm_backward(View<Real, 2> d_x,                               // (T, C)  added to
                        LayernormGradient<Real>, View<const Real, 2> x,  // (T, C)
                        View<const Real, 1> g,                           // (C)
                        View<const Real, 2> d_y,                         // (T, C)
                        double eps);

}  // namespace dsa::reference
