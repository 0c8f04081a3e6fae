// verify/judge/judge.hpp — from a checkpoint and a golden to a verdict.
//
//   read_inputs   opens every file, and runs an implementation of ours      (inputs.hpp)
//   hold          a side against the definition: limits, rows, tensors (against_definition.hpp)
//   by_golden     the candidate's rows against the golden as well           (against_golden.hpp)
//   conclude      the outcome                                               (conclude.hpp)
//
// The definition is the reference in double. Limits come from perturbed runs at the side's
// precision (verify/limits/noise.hpp). Where the side brings a trace, its decisions are judged as
// decisions, and replayed where they are explained, so that later tensors are compared on equal
// terms.
#pragma once

#include <filesystem>
#include <string>

#include "verify/judge/inputs.hpp"
#include "verify/judge/options.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

/// Judges the golden, or the candidate by the golden. Opens no file.
Verdict judge(const Inputs&, const JudgeOptions&);

/// Both steps, timed. Bad input is an Error.
Verdict judge(const Checkpoint&, const std::filesystem::path& golden, const Candidate&,
              const JudgeOptions&);

/// Why an fp32 limit may be the wrong one: a bf16 run that is stored as F32 fails it. Empty where
/// the numbers do not look like that.
std::string bf16_hint(const ModelPair&, const Recording& side, const JudgeOptions&);

}  // namespace dsa::verify
