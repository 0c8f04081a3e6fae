// optimized/cpu/ops/norms.hpp — definition: reference/ops/norms.hpp. Sums in fp32; Y: float or
// bf16.
#pragma once

#include "core/dtype.hpp"
#include "optimized/cpu/ops/tier.hpp"

namespace dsa::cpu {

template <class Y>
void rmsnorm(Cpu, View<Y, 2> y,       // (T, C)  out
             View<const float, 2> x,  // (T, C)
             View<const float, 1> g,  // (C)
             double eps);

template <class Y>
void layernorm(Cpu, View<Y, 2> y,       // (T, C)  out
               View<const float, 2> x,  // (T, C)
               View<const float, 1> g,  // (C)
               View<const float, 1> b,  // (C)
               double eps);

}  // namespace dsa::cpu
