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

}  // namespace dsa::cpu
