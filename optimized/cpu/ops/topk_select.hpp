// optimized/cpu/ops/topk_select.hpp — the K largest of each row. Definition:
// reference/ops/topk_select.hpp.
//
// chosen[t,:] = the min(K, visible) subscripts of largest scores[t,:], in ascending order, then -1.
// A score of -inf is invisible. Total order: value descending, then index ascending; -0 = +0.
#pragma once

#include "optimized/cpu/ops/scratch.hpp"
#include "optimized/cpu/ops/tier.hpp"

namespace dsa::cpu {

/// Error: a score is NaN; its place is named.
void topk_select(Cpu, View<std::int32_t, 2> chosen,  // (T, K)  out
                 View<const float, 2> scores,        // (T, S)
                 Scratch);
Index topk_select_scratch(Index S, Index K);

}  // namespace dsa::cpu
