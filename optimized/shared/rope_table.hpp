// optimized/shared/rope_table.hpp — the angles of rotary position embedding, for every backend.
// Definition: reference/ops/rope.hpp.
#pragma once

#include <span>

#include "core/config.hpp"

namespace dsa {

/// The table is computed in double and rounded once: an fp32 angle at position 1e5 is off by 1e-2.
void rope_table(View<float, 2> cos,  // (T, P/2)  out
                View<float, 2> sin,  // (T, P/2)  out
                std::span<const Index> positions, const Rope&);

}  // namespace dsa
