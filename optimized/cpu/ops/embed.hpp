// optimized/cpu/ops/embed.hpp — rows of a table: the vectors of the tokens.
#pragma once

#include <cstdint>

#include "core/dtype.hpp"
#include "optimized/cpu/ops/tier.hpp"

namespace dsa::cpu {

/// Y and W: float or bf16. float from bf16 is exact; bf16 from float rounds to nearest, ties to
/// even. Error: a token is not in [0, V).
template <class Y, class W>
void embed(Cpu, View<Y, 2> y,                    // (T, C)  out
           View<const W, 2> table,               // (V, C)
           View<const std::int32_t, 1> tokens);  // (T)

/// forward: x[t] = W[tokens[t]]       so: d_W[tokens[t]] += d_x[t], row after row
void embed_backward(Cpu, View<float, 2> d_table,         // (V, C)  added to
                    View<const std::int32_t, 1> tokens,  // (T)
                    View<const float, 2> d_x);           // (T, C)

}  // namespace dsa::cpu
