// verify/side.hpp — one side (golden or candidate) held against the definition.
#pragma once

#include <vector>

#include "verify/explain.hpp"
#include "verify/judge.hpp"

namespace dsa::verify {

/// The definition, and the same checkpoint as the side's implementation loads it.
struct Models {
  Model definition, loaded;
  reference::Precision precision = reference::Precision::fp64;
  bool in_memory = false;               // decoded once; runs go side by side
  std::function<void(Altered&)> alter;  // a defect put into both; empty: none

  Altered exact() const;                                  // the definition
  Altered rounded(const reference::Rounding& how) const;  // with the precision's roundings
};
/// `as_stored`: FP8 parameters stay as they are in the file, for defects that alter their scales.
Models open_models(const std::filesystem::path& checkpoint, reference::Precision,
                   bool as_stored = false);

/// One sequence of a side against the definition.
struct SequenceResult {
  Run base;  // the definition, with the side's explained decisions replayed
  Limits limits;
  FreeRuns free;            // empty where every row lies within its limit
  Explanation explanation;  // likewise
};

struct SideResult {
  Judgement judgement;
  std::vector<SequenceResult> sequences;
};

/// Holds every sequence of `side` against the definition. `what` names it in the title. `measured`:
/// what measure_sequences() found for these sequences; the side then brings no trace.
SideResult hold_against_definition(const Models&, const Golden& side, const std::string& what,
                                   const JudgeOptions&,
                                   const std::vector<SequenceResult>* measured = nullptr);

/// Limits and free runs of sequences, for judging many sides that have them in common.
std::vector<SequenceResult> measure_sequences(const Models&, const std::vector<Sequence>&,
                                              const JudgeOptions&);

/// Rows of logits (`want` against `got`), each with the limits of its sequence.
LogitsResult judge_logits(const std::vector<Sequence>&, const std::vector<Tensor<double, 2>>& want,
                          const std::vector<Tensor<double, 2>>& got,
                          const std::vector<SequenceResult>&, const NoiseOptions&);

/// Adds a value to a check, which reports the one with the largest value / limit.
void add_to(Check&, double value, double limit, const Place&);

/// Decides a judgement from its parts: outcome, why, first departure.
void conclude(Judgement&);

NoiseOptions noise_options(const JudgeOptions&, const Models&);

}  // namespace dsa::verify
