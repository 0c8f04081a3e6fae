// verify/gradients/judge.hpp — are these the gradients of the model's definition?
//
// The definition's own gradients are computed in double (reference/model/backward.hpp). Limits come
// from perturbed runs: the whole of forward and backward again with the roundings of a precision,
// drawn at random, decisions falling as they may. Each parameter has two numbers, the relative
// distance |g' - g| / |g| and the largest error over the largest entry; the limit of each is
// Student's t on the logarithms of the draws, at alpha over all numbers that are judged; the spread
// is the parameter's own or that of all, whichever is larger.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "reference/ops/index_kl.hpp"
#include "reference/precision/precision.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

struct GradientOptions : Draws {
  std::optional<reference::Precision> precision;  // of what is judged; absent: told by its numbers
  std::string semantics = "paper";
  std::vector<std::string> losses;  // empty: those of the file
  std::string names;                // parameter map of the judged file; empty: none
  GradientOptions() { runs = 10; }  // each is a whole pass backwards
};

struct LossResult {
  std::string name;  // "lm"
  double golden = 0, other = 0, limit = 0;
  bool ok = false;
};

struct ParameterResult {
  std::string name, loss;
  double norm_golden = 0, norm_other = 0, cosine = 0;
  double distance = 0, distance_limit = 0;
  double worst_over_allowed = 0;  // the larger of both numbers over their limits
  Index at = -1;                  // linear index of the largest error
  bool missing = false;           // the file does not have it
  bool ok() const { return !missing && worst_over_allowed <= 1; }
};

/// A gradient that must be nothing, and is something.
struct MustBeZero {
  std::string name, loss;
  double found = 0;  // norm
};

struct GradientVerdict {
  std::string checkpoint, golden, candidate;
  std::string precision, semantics;
  Outcome outcome = Outcome::inconclusive;
  std::string why;
  std::vector<LossResult> losses;
  std::vector<ParameterResult> parameters;  // in backward order: of the output first
  std::vector<MustBeZero> must_be_zero;
  std::vector<std::string> notes;
  std::optional<std::string> first_departure;
  Receipt receipt;
};

/// Judges `candidate`, or the golden itself where that is empty. Both hold gradients for the same
/// tokens. Bad input is an Error.
GradientVerdict judge_gradients(const std::string& checkpoint, const std::string& golden,
                                const std::string& candidate, const GradientOptions&);

}  // namespace dsa::verify
