// verify/judge/in_words.hpp — what the limits of a judgement are made of, in words and numbers.
#pragma once

#include <string>
#include <vector>

#include "verify/judge/rows.hpp"

namespace dsa::verify {

/// A line each: the model of rounding, the number of runs and the significance; then for every
/// sequence every row of KL and the logits' elements, and every traced tensor at its worst place.
std::vector<std::string> explained_limits(const Judgement&, const std::vector<SequenceResult>&,
                                          const std::vector<Sequence>&, const NoiseOptions&);

}  // namespace dsa::verify
