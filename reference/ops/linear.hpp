// reference/ops/linear.hpp — y[t,o] = sum_i W[o,i] x[t,i] + b[o].
//
// The one place of the reference that uses a library (Eigen): the products of a 671B model would
// otherwise take days. W is decoded in blocks of rows, so that no more of it than a block per
// thread is ever in memory; the blocks do not depend on the number of threads, nor do the results.
#pragma once

#include "core/tensor.hpp"
#include "core/weights.hpp"

namespace dsa::reference {

template <class Real>
void linear(View<Real, 2> y,        // (T, out)  out
            View<const Real, 2> x,  // (T, in)
            const Linear& w);       // (out, in), and (out) where there is a bias

/// The same, and squares[o] = sum_i W[o,i]^2, which costs little while W is decoded anyway.
template <class Real>
void linear(View<Real, 2> y, View<const Real, 2> x, const Linear& w, View<Real, 1> squares);

/// y = x W^T for a W that is already decoded.
template <class Real>
void multiply(View<Real, 2> y,         // (T, out)  out
              View<const Real, 2> x,   // (T, in)
              View<const Real, 2> w);  // (out, in)

/// What W and b learn. A view without data is not wanted, and costs nothing.
template <class Real>
struct LinearGradient {
  View<Real, 2> d_weight;  // (out, in)  added to
  View<Real, 1> d_bias;    // (out)      added to
};

/// forward: y[t,o] = sum_i W[o,i] x[t,i] + b[o]
/// so:      d_x[t,i] += sum_o W[o,i] d_y[t,o],  d_W[o,i] += sum_t d_y[t,o] x[t,i],
///          d_b[o] += sum_t d_y[t,o]
template <class Real>
void linear_backward(View<Real, 2> d_x,  // (T, in)   added to; without data: not wanted
                     LinearGradient<Real>, View<const Real, 2> x,  // (T, in)
                     const Linear& w,                              // (out, in)
                     View<const Real, 2> d_y);                     // (T, out)

/// "avx512", "avx2" or "portable": which build of Eigen's double product this machine runs.
const char* linear_kernel();

}  // namespace dsa::reference
