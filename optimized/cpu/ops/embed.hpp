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

}  // namespace dsa::cpu
