// optimized/cpu/ops/rope.hpp — rotary position embedding. Definition: reference/ops/rope.hpp.
#pragma once

#include "core/config.hpp"
#include "optimized/cpu/ops/tier.hpp"

namespace dsa::cpu {

/// Turns channels [first, first + P) of every head, in place.
void rope(Cpu, View<float, 3> x,     // (T, heads, width)  in and out
          View<const float, 2> cos,  // (T, P/2)
          View<const float, 2> sin,  // (T, P/2)
          Index first, RopeLayout);

/// forward: (a, b) <- (a cos - b sin, b cos + a sin)
/// so:      (d_a, d_b) <- (d_a cos + d_b sin, d_b cos - d_a sin): the turn backwards, in place.
void rope_backward(Cpu, View<float, 3> d_x,   // (T, heads, width)  in and out
                   View<const float, 2> cos,  // (T, P/2)
                   View<const float, 2> sin,  // (T, P/2)
                   Index first, RopeLayout);

}  // namespace dsa::cpu
