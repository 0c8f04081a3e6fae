// verify/diagnose/lower_precision.hpp — a right run, computed in fewer bits than it is judged by.
#pragma once

#include <optional>

#include "verify/judge/judge.hpp"

namespace dsa::verify {

/// A precision narrower than `judged` whose roundings account for the whole candidate.
struct LowerPrecision {
  reference::Precision precision = reference::Precision::fp64;
  double ratio = 0;   // of the candidate's mean KL to that precision's; NaN without logits
  std::string words;  // "TF32: inputs of matrix products with 10 bits of fraction"
  std::string cure;   // what to set, or which --precision judges such runs
};

/// The widest precision under whose limits the candidate passes while its differences are of the
/// size that this precision leaves (a factor of 8 either way in KL): limits alone would let errors
/// pass that are smaller. None: nothing fits, or the model does not fit into memory.
std::optional<LowerPrecision> lower_precision(const Model& stored, const Recording& side,
                                              reference::Precision judged, const JudgeOptions&);

}  // namespace dsa::verify
