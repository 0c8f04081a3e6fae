// verify/diagnose/lower_precision.hpp — a right run, computed in fewer bits than it is judged by.
#pragma once

#include <optional>
#include <string>

#include "verify/judge/judge.hpp"

namespace dsa::verify {

/// A precision narrower than the judged one whose roundings account for the whole candidate.
struct LowerPrecision {
  reference::Precision precision = reference::Precision::fp64;
  bool shown = false;  // the numbers themselves are of its format
  double ratio = 0;    // of the candidate's mean KL to that precision's; NaN without logits
  std::string words;   // "bf16, stored in a wider format"
};

/// The widest precision under whose limits the candidate passes, and that it bears the mark of:
/// its numbers are all of the precision's format, or its logits differ by as much as the
/// precision leaves (a factor of 8 either way in KL). Limits alone would let smaller errors pass,
/// whatever their cause; so may the size by itself, which is why `shown` says which it is. None:
/// nothing fits, or the model does not fit into memory.
std::optional<LowerPrecision> lower_precision(const Model& stored, const Recording& side,
                                              reference::Precision judged, const JudgeOptions&);

}  // namespace dsa::verify
