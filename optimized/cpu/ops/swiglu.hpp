// optimized/cpu/ops/swiglu.hpp — the nonlinearity of a feed-forward network. Definition:
// reference/model/ops.cpp.
#pragma once

#include "core/dtype.hpp"
#include "optimized/cpu/ops/tier.hpp"

namespace dsa::cpu {

/// h = silu(gate) * up of gate_up (T, 2F). H: float or bf16.
template <class H>
void swiglu(Cpu, View<H, 2> h,              // (T, F)   out
            View<const float, 2> gate_up);  // (T, 2F)  gate first

/// forward: h = z a up,  z = gate,  a = sigmoid(z)
/// so:      d_up = d_h z a,   d_gate = d_h up a ( 1 + z (1 - a) )
void swiglu_backward(Cpu, View<float, 2> d_gate_up,  // (T, 2F)  out; gate first
                     View<const float, 2> gate_up,   // (T, 2F)
                     View<const float, 2> d_h);      // (T, F)

}  // namespace dsa::cpu
