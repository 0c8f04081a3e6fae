// experiments/rates/unknown_candidates.hpp — candidates that are wrong in ways that no known defect
// has: what the judge calls them is a false name.
#pragma once

#include <string>

#include "core/recording.hpp"
#include "verify/runs/models.hpp"

namespace dsa::experiments {

/// A candidate and how it was spoiled: "random keys below 40 from row 66, selections only".
struct Unknown {
  std::string how;
  Recording candidate;  // of one sequence, in double
};

/// A function of the seed: random selections, windows, permutations, noise on the result of one op,
/// or one projection with another layer's weights (never the layer before, which is a known
/// defect); shown as logits, as selections, or as a whole trace. `models` at fp64 or hf-fp32, whose
/// roundings the candidate gets.
Unknown draw_unknown(const verify::ModelPair& models, const Sequence&, std::uint64_t seed);

}  // namespace dsa::experiments
