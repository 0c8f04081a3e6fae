// optimized/cpu/ops/norms_backward.hpp — definition: reference/ops/norms.hpp. Sums in fp32: over
// runs of rows, then run after run.
#pragma once

#include "optimized/cpu/ops/tier.hpp"
#include "optimized/cpu/ops/train_memory.hpp"

namespace dsa::cpu {

struct NormIn {
  View<const float, 2> x;    // (T, C)
  View<const float, 1> g;    // (C)
  View<const float, 2> d_y;  // (T, C)
  double eps = 0;
};

/// forward: y = g n,  n = x / r,  r = sqrt( mean_c x^2 + eps )
/// so:      d_g += sum_t d_y n,   d_x = ( d_n - n mean_c(d_n n) ) / r,  d_n = g d_y
/// `add`: added to d_x. No data in d_g: not wanted.
void rmsnorm_backward(Cpu, View<float, 2> d_x, View<float, 1> d_g, const NormIn&, bool add,
                      TrainMemory&);

/// forward: y = g n + b,  n = (x - mean) / r,  r = sqrt( var + eps )
/// so:      d_b += sum_t d_y,  d_g += sum_t d_y n,
///          d_x = ( d_n - mean_c(d_n) - n mean_c(d_n n) ) / r,  d_n = g d_y
void layernorm_backward(Cpu, View<float, 2> d_x, View<float, 1> d_g, View<float, 1> d_b,
                        const NormIn&, bool add, TrainMemory&);

}  // namespace dsa::cpu
