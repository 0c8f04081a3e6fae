// verify/diagnose/distance.hpp — how much of a candidate an altered reference leaves unexplained.
#pragma once

#include "core/recording.hpp"
#include "verify/runs/variant.hpp"

namespace dsa::verify {

struct Distance {
  /// Mean KL of a row of logits, plus, of every traced tensor, the normalised mean square error,
  /// and of every traced decision the share of keys that differ. What is no number counts 1000.
  double sum = 0;
  double kl_max = 0;  // NaN where the candidate has no logits
};

/// One run of `altered` over every sequence of the candidate.
Distance distance(const Variant& altered, const Recording& candidate);

}  // namespace dsa::verify
