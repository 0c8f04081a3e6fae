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

/// "avx512", "avx2" or "portable": which build of Eigen's double product this machine runs.
const char* linear_kernel();

}  // namespace dsa::reference
