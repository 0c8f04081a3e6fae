// verify/distance.hpp — how much of a candidate an altered reference leaves unexplained.
#pragma once

#include "core/golden.hpp"
#include "verify/defects/defect.hpp"

namespace dsa::verify {

struct Distance {
  /// Mean KL of a row of logits, plus, of every traced tensor, the normalised mean square error,
  /// and of every traced decision the share of keys that differ. What is no number counts 1000.
  double sum = 0;
  double kl_max = 0;  // NaN where the candidate has no logits
};

/// One run of `altered` over every sequence of the candidate.
Distance distance(const Altered& altered, const Golden& candidate);

}  // namespace dsa::verify
