// experiments/sweep/statistics.hpp — what paired runs say, with an interval, and the verdict that
// follows from it by a rule that was fixed before the runs.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "core/tensor.hpp"

namespace dsa::sweep {

/// Of n paired differences: their mean, and the 95 % interval of Student's t with n-1 degrees of
/// freedom,
///   mean -+ t(0.975, n-1) s / sqrt n,   s^2 = sum (d - mean)^2 / (n-1);
/// with one difference the interval is everything.
struct Estimate {
  Index n = 0;
  double mean = 0, low = 0, high = 0;
  double p = 1;  // sign_flip_p
};

Estimate estimate(std::span<const double> differences);

/// Exact two-sided test of "the sign of every difference is as likely + as -": the share of the 2^n
/// choices of signs whose sum is at least as far from 0 as the sum found. The smallest value that n
/// pairs can reach is 2^(1-n): 0.25 with three. NaN beyond 24 pairs.
double sign_flip_p(std::span<const double> differences);

/// The bound that a claim is held against.
struct Gate {
  enum class Kind { at_least, at_most, within };
  Kind kind = Kind::at_least;
  double bound = 0;
};

/// ">= 0.1", "<= 0.1", "within 0.1" (of 0: between -0.1 and 0.1).
Gate parse_gate(const std::string& text, const std::string& what);
std::string text_of(const Gate&);

enum class Verdict { holds, does_not, cannot_tell };

std::string_view name_of(Verdict);  // "holds", "does not hold", "cannot tell"

/// holds: every value of the interval satisfies the gate. does_not: none does. cannot_tell: some
/// do. The rule for every claim of every sweep.
Verdict judge(const Estimate&, const Gate&);

}  // namespace dsa::sweep
