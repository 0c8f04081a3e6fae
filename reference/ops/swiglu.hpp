// reference/ops/swiglu.hpp — h = silu(gate) up,  silu(z) = z sigmoid(z); element by element.
//
// SwiGLU (arXiv 2002.05202) without its three matrices.
#pragma once

#include "core/tensor.hpp"

namespace dsa::reference {

template <class Real>
void swiglu(View<Real, 2> h,           // (T, F)  out
            View<const Real, 2> gate,  // (T, F)
            View<const Real, 2> up);   // (T, F)

/// forward: h = z a up,  z = gate,  a = sigmoid(z)
/// so:      d_up += d_h z a,   d_gate += d_h up a ( 1 + z (1 - a) )
template <class Real>
void swiglu_backward(View<Real, 2> d_gate,      // (T, F)  added to
                     View<Real, 2> d_up,        // (T, F)  added to
                     View<const Real, 2> gate,  // (T, F)
                     View<const Real, 2> up,    // (T, F)
                     View<const Real, 2> d_h);  // (T, F)

}  // namespace dsa::reference
