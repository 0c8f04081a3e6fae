// optimized/train/model/selectors.hpp — selections that an indexer's is measured against.
//
// Each writes chosen (T, K): visible keys begin[t] <= s <= t in ascending order, then -1. A row
// with at most K visible keys chooses all of them.
#pragma once

#include "optimized/cpu/ops/heads_attention.hpp"

namespace dsa::train {

/// The last K.
void choose_recent(View<std::int32_t, 2> chosen, View<const std::int32_t, 1> begin);

/// K drawn without replacement, as a function of the seed and the row.
void choose_random(View<std::int32_t, 2> chosen, View<const std::int32_t, 1> begin,
                   std::uint64_t seed);

/// Those of the largest dense attention, summed over heads; of equal ones, the first.
void choose_oracle(View<std::int32_t, 2> chosen, const cpu::HeadsIn&);

}  // namespace dsa::train
