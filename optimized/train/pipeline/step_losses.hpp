// optimized/train/pipeline/step_losses.hpp — losses of a step from those of its micro-batches,
// wherever these were computed.
#pragma once

#include "core/json.hpp"
#include "optimized/ranks/collectives.hpp"
#include "optimized/train/pipeline/names.hpp"

namespace dsa::train {

/// As numbers that one rank sends to another, and back.
ranks::Numbers to_numbers(const Losses&);
Losses losses_of(const ranks::Numbers&);

/// sum += x
void add(Losses& sum, const Losses& x);

/// A loss that is no finite number, as a sentence names it; null: all are finite.
const char* not_finite(const Losses&);

/// Means as they are reported: per target, per row and layer, per document.
Json means_of(const Losses& sums, const StepSize&);

}  // namespace dsa::train
