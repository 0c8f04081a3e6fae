// verify/training/judge.hpp — is this run of training what its recipe says?
//
// The recipe's steps are taken again in double, from the recorded tokens. Limits come from the same
// run with the roundings of a precision (verify/training/rehearsal.hpp). What lies beyond is
// explained where it can be: by decisions that rounding may have turned, which is no fault; or by a
// known defect of an optimiser (verify/training/defects.hpp), whose replay prints the same numbers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/recipe.hpp"
#include "reference/precision/precision.hpp"
#include "verify/training/decisions.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

struct TrainingOptions : Draws {
  std::optional<reference::Precision> precision;  // of what is judged; absent: told by its numbers
  std::string recipe;                             // a file; empty: see training_recipe()
  std::string names;                              // parameter map of the judged file; empty: none
  TrainingOptions() { runs = 2; }                 // each is a whole run
};

/// A quantity of the steps, [step] each.
struct QuantityResult {
  std::string name;
  std::vector<double> expected, found, limit;
  Index first = -1;               // the first step beyond its limit
  double worst_over_allowed = 0;  // over all steps
  Index worst = 0;                // its step
  bool ok() const { return first < 0; }
};

/// A parameter after the last step.
struct FinalResult {
  std::string name;
  double distance = 0, distance_limit = 0;  // relative
  double worst_over_allowed = 0;
  Index at = -1;         // linear index of the largest error
  bool missing = false;  // the trajectory has it, the candidate has not
  bool frozen = false;   // the recipe does not train it: it must be the checkpoint's
  bool ok() const { return !missing && worst_over_allowed <= 1; }
};

/// A known defect whose replay lies within the limits of what was found.
struct KnownCause {
  std::string name, sentence;
};

struct TrainingVerdict {
  std::string checkpoint, trajectory, candidate;
  std::string precision;
  Recipe recipe;
  std::string recipe_from;  // "recipe.json", "the metadata of ...", or what was assumed
  Outcome outcome = Outcome::inconclusive;
  std::string why;
  Index steps = 0;
  std::vector<QuantityResult> quantities;
  std::vector<FinalResult> finals;
  std::vector<NearDecision> turned;  // by rounding: what follows was compared with them turned
  Index undecided_from = -1;         // a decision of this step may explain what follows; none does
  std::optional<std::string> first_departure;  // "grad_norm of step 3", "final NAME"
  std::vector<KnownCause> causes;
  std::vector<std::string> notes;
  Receipt receipt;
};

/// Judges `candidate`, or the trajectory itself where that is empty. Both are runs over the same
/// tokens. Bad input is an Error.
TrainingVerdict judge_training(const std::string& checkpoint, const std::string& trajectory,
                               const std::string& candidate, const TrainingOptions&);

}  // namespace dsa::verify
