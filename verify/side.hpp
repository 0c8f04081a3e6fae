// verify/side.hpp — one side (golden or candidate) held against the definition.
#pragma once

#include <vector>

#include "verify/judge.hpp"

namespace dsa::verify {

/// The definition, and the same checkpoint as the side's implementation loads it.
struct Models {
  Model definition, loaded;
  bool in_memory = false;  // decoded once; runs go side by side
};

/// What holding a side against the definition leaves behind, a value a sequence.
struct SideResult {
  Judgement judgement;
  std::vector<Run> base;  // the definition, with the side's explained decisions replayed
  std::vector<Noise> noise;
};

/// Holds every sequence of `side` against the definition. `what` names it in the title.
SideResult hold_against_definition(const Models&, const Golden& side, reference::Precision,
                                   const std::string& what, const JudgeOptions&);

/// Rows of logits side by side: `want` against `got`, with the limits of `noise`.
LogitsResult judge_logits(const std::vector<Sequence>&, const std::vector<Tensor<double, 2>>& want,
                          const std::vector<Tensor<double, 2>>& got,
                          const std::vector<Noise>& noise, const NoiseOptions&);

/// Decides a judgement from its parts: outcome, why, first departure.
void conclude(Judgement&);

NoiseOptions noise_options(const JudgeOptions&, reference::Precision, bool parallel);

}  // namespace dsa::verify
