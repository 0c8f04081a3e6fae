// optimized/cpu/ops/cross_entropy.hpp — definition: reference/ops/losses.hpp.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"
#include "optimized/cpu/ops/tier.hpp"

namespace dsa::cpu {

/// forward: loss[t] = log sum_v exp z_v - z_target
/// so:      d_z_v = factor[t] ( softmax(z)_v - [v = target] )
/// With factors, d_z is written over z. Error: a target is not in [0, V). A NaN among
/// the logits is a NaN in the loss.
void cross_entropy(Cpu, View<double, 1> loss,            // (T)     out
                   View<float, 2> z,                     // (T, V)  in and out
                   View<const std::int32_t, 1> targets,  // (T)
                   View<const float, 1> factor);         // (T), or without data

}  // namespace dsa::cpu
