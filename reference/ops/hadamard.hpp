// reference/ops/hadamard.hpp — y = H_D x / sqrt(D), H_D the Sylvester-Hadamard matrix, D a power of
// two.
//
// Orthogonal, so applied to q and k it leaves q.k as it was; the official serving code rotates
// the indexer's q and k with it before quantising them (inference/model.py, rotate_activation).
#pragma once

#include "core/tensor.hpp"

namespace dsa::reference {

template <class Real>
void hadamard(View<Real, 2> x);  // (rows, D)  in and out

/// forward: y = H x / sqrt(D)      so: d_x = H d_y / sqrt(D), for H is symmetric; in place.
template <class Real>
void hadamard_backward(View<Real, 2> d_x);  // (rows, D)  in: d_y, out: d_x

}  // namespace dsa::reference
