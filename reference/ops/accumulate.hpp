// reference/ops/accumulate.hpp — sums of rows: an expert's answers go back to its tokens, and the
// residual stream takes what a layer adds.
#pragma once

#include <span>

#include "core/tensor.hpp"

namespace dsa::reference {

/// y[rows[i],:] += weights[i] x[i,:]
template <class Real>
void accumulate(View<Real, 2> y,                 // (T, C)  added to
                View<const Real, 2> x,           // (n, C)  an expert's answers
                std::span<const Index> rows,     // (n)     the tokens they answer
                std::span<const Real> weights);  // (n)     of the router

/// forward: y[rows[i]] += w_i x[i]
/// so:      d_x[i] += w_i d_y[rows[i]],   d_w_i += x[i].d_y[rows[i]];   d_y itself passes on.
template <class Real>
struct AccumulateGradient {
  View<Real, 2> d_x;          // (n, C)  added to
  std::span<Real> d_weights;  // (n)     added to
};
template <class Real>
void accumulate_backward(AccumulateGradient<Real>, View<const Real, 2> x,
                         std::span<const Index> rows, std::span<const Real> weights,
                         View<const Real, 2> d_y);  // (T, C)

/// y += x
template <class Real>
void add(View<Real, 2> y, View<const Real, 2> x);  // (T, C)

/// forward: y += x       so: d_x += d_y;   d_y itself passes on.
template <class Real>
void add_backward(View<Real, 2> d_x, View<const Real, 2> d_y);  // (T, C)

}  // namespace dsa::reference
