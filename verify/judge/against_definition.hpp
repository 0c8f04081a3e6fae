// verify/judge/against_definition.hpp — one side (golden or candidate) held against the definition.
#pragma once

#include <string>
#include <vector>

#include "verify/judge/options.hpp"
#include "verify/judge/rows.hpp"
#include "verify/runs/models.hpp"

namespace dsa::verify {

struct SideResult {
  Judgement judgement;
  std::vector<SequenceResult> sequences;
};

/// Holds every sequence of `side` against the definition: limits, runs, rows, tensors. The
/// judgement has no outcome yet (verify/judge/conclude.hpp). `what` names the side in the title.
/// `measured`: what measure_sequences() found for these sequences; the side then brings no trace.
SideResult hold(const ModelPair&, const Recording& side, const std::string& what,
                const JudgeOptions&, const std::vector<SequenceResult>* measured = nullptr);

/// The same, concluded: a side that is judged by the definition alone.
SideResult hold_against_definition(const ModelPair&, const Recording& side, const std::string& what,
                                   const JudgeOptions&,
                                   const std::vector<SequenceResult>* measured = nullptr);

/// Limits and free runs of sequences, for judging many sides that have them in common.
std::vector<SequenceResult> measure_sequences(const ModelPair&, const std::vector<Sequence>&,
                                              const JudgeOptions&);

/// Runs with the roundings of the models' precision drawn at random. Borrows the models.
Perturbed rounded_at_random(const ModelPair&);

NoiseOptions noise_options(const JudgeOptions&, const ModelPair&);

}  // namespace dsa::verify
