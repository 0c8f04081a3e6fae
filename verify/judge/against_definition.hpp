// verify/judge/against_definition.hpp — one side (golden or candidate) held against the definition.
#pragma once

#include <vector>

#include "verify/judge/judge.hpp"
#include "verify/limits/explain.hpp"
#include "verify/runs/models.hpp"

namespace dsa::verify {

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
SideResult hold_against_definition(const ModelPair&, const Recording& side, const std::string& what,
                                   const JudgeOptions&,
                                   const std::vector<SequenceResult>* measured = nullptr);

/// Limits and free runs of sequences, for judging many sides that have them in common.
std::vector<SequenceResult> measure_sequences(const ModelPair&, const std::vector<Sequence>&,
                                              const JudgeOptions&);

/// Rows of logits (`want` against `got`), each with the limits of its sequence.
LogitsResult judge_logits(const std::vector<Sequence>&, const std::vector<Tensor<double, 2>>& want,
                          const std::vector<Tensor<double, 2>>& got,
                          const std::vector<SequenceResult>&, const NoiseOptions&);

/// Decides a judgement from its parts: outcome, why, first departure.
void conclude(Judgement&);

NoiseOptions noise_options(const JudgeOptions&, const ModelPair&);

}  // namespace dsa::verify
