// reference/precision/rounder_backward.hpp — the backward pass with somebody's roundings.
//
// torch's autograd in float32 or bfloat16: a module's backward reads rounded activations and
// gradients, sums in float32, and stores what it passes on in the dtype of the tensor that the
// gradient belongs to; where two gradients meet, their sum is rounded again. The table of
// reference/model/backward_ops.hpp with a rounding in every row, as rounder.hpp is of ops.hpp.
#pragma once

#include "reference/model/backward_ops.hpp"
#include "reference/precision/rounder.hpp"

namespace dsa::reference {

/// The backward half of ops_of(). Precisions that nobody trains in are an Error.
BackwardOps<double> backward_ops_of(Precision, Rounding);

}  // namespace dsa::reference
