// verify/judge/rows.hpp — rows of logits against the definition, each judged once.
//
// A row beyond its limit is undecided where a free run takes the reference as far (verify/limits/
// noise.hpp), and explained where flipped near-ties bring it back within its limit (explain.hpp).
#pragma once

#include <vector>

#include "core/recording.hpp"
#include "verify/limits/explain.hpp"
#include "verify/measure/divergence.hpp"

namespace dsa::verify {

/// One sequence of a side against the definition.
struct SequenceResult {
  Run base = {};  // the definition, with the side's explained decisions replayed
  Limits limits = {};
  FreeRuns free = {};                // empty where every row lies within its limit
  Explanation explanation = {};      // likewise
  std::vector<RowResult> rows = {};  // of the side's logits, without padding
};

/// Row t of sequence b: the side's logits are `want`.
LogitsRow row_of(const Sequence&, const Place& at, const Tensor<double, 2>& want,
                 const Tensor<double, 2>& got);

/// Sets rows: KL and elements of every row of `theirs` (S, V), against the limits.
void judge_rows(SequenceResult&, const Sequence&, Index b, const Tensor<double, 2>& theirs);

/// Marks rows beyond their limits as explained or undecided, by what free runs and the search for
/// an explanation have found so far.
void settle_rows(SequenceResult&);

/// All rows of several sequences, and their statistics: `want` against `got`.
LogitsResult judge_logits(const std::vector<Sequence>&, const std::vector<Tensor<double, 2>>& want,
                          const std::vector<SequenceResult>&, const NoiseOptions&);

/// Checks and statistics over rows as they were judged. Sets all but flips and user's limits.
void summarise(LogitsResult&, const std::vector<LogitsRow>&);

}  // namespace dsa::verify
