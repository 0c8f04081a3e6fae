// optimized/cpu/rope.hpp — rotary position embedding. Definition: reference/rope.hpp.
#pragma once

#include <span>

#include "core/config.hpp"
#include "optimized/cpu/tier.hpp"

namespace dsa::cpu {

/// The table is computed in double and rounded once: an fp32 angle at position 1e5 is off by 1e-2.
void rope_table(View<float, 2> cos,  // (T, P/2)  out
                View<float, 2> sin,  // (T, P/2)  out
                std::span<const Index> positions, const Rope&);

/// Turns channels [first, first + P) of every head, in place.
void rope(Cpu, View<float, 3> x,     // (T, heads, width)  in and out
          View<const float, 2> cos,  // (T, P/2)
          View<const float, 2> sin,  // (T, P/2)
          Index first, RopeLayout);

}  // namespace dsa::cpu
