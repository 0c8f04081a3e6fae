// verify/kernels/decision.hpp — a selection that a kernel made, judged as a decision.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "verify/kernels/op.hpp"

namespace dsa::verify::kernels {

/// One row: subscripts in ascending order, then -1.
struct Decision {
  /// How much of what their errors allow was needed to prefer the weakest chosen to the strongest
  /// rejected; above 1: no scores within their errors choose so. Infinite: not a selection at all.
  double ratio = 0;
  std::string why = {};  // what is wrong, one clause
  bool ok() const { return ratio <= 1; }
};

/// Right if min(K, visible) different visible subscripts were chosen, and some scores within their
/// errors would have chosen them under the total order "value descending, then index ascending":
/// of exact scores (allowed 0) only one set is right, ties included.
Decision judge_decision(std::span<const double> chosen, View<const double, 1> scores,
                        View<const double, 1> allowed);

/// Every row of `chosen` (T, K) by the scores (T, S) of the case, want["scores"] and their allowed
/// errors.
Comparison judge_selection(const Case&, const std::vector<double>& chosen);

/// want["scores"] as they are, allowed["scores"], and what the reference selects of them:
/// want["chosen"], out["chosen"] (T, K).
void set_selection(Case&, const Tensor<double, 2>& scores, const Tensor<double, 2>& allowed,
                   Index K);

}  // namespace dsa::verify::kernels
