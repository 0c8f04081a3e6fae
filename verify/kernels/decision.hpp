// verify/kernels/decision.hpp — a selection that a kernel made, judged as a decision.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "verify/kernels/op.hpp"
#include "verify/measure/selection.hpp"

namespace dsa::verify::kernels {

/// One row (K) as a kernel writes it: subscripts in ascending order, then -1. Judged under the
/// total order "value descending, then index ascending", ties included.
TopkVerdict judge_row(std::span<const double> chosen, View<const double, 1> scores,
                      View<const double, 1> allowed);

/// Counts one row of a decision (T, K); the worst says where and why: "row 3: ...".
void add_row(OutputVerdict&, Index t, const TopkVerdict&, const std::string& noun);

/// Output "chosen" (T, K), every row by the scores (T, S) of the case, want["scores"], and their
/// allowed errors.
OutputVerdict judge_selection(const Case&, const Arrays& out);

/// The scalar topk. Error: it is below 0, above 2^20, or no whole number.
Index topk_of(const Case&);

/// want["scores"] as they are, allowed["scores"], and what the reference selects of them:
/// want["chosen"], out["chosen"] (T, K).
void set_selection(Case&, const Tensor<double, 2>& scores, const Tensor<double, 2>& allowed,
                   Index K);

}  // namespace dsa::verify::kernels
