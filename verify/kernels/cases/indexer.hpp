// verify/kernels/cases/indexer.hpp — problems that indexer_scores and indexer_topk share.
#pragma once

#include "verify/kernels/cases/pose.hpp"

namespace dsa::verify::kernels {

/// Which keys the queries see.
enum class Sees {
  causal,           // query 0 follows S - T keys
  packed,           // three documents in one sequence
  nothing_in_some,  // every other query is padding
  from_the_start,   // the last S - T rows of the cache are not filled yet
};

struct IndexPlan {
  std::string dtype;
  Index T, S, H, D, K;
  Inputs inputs;
  std::string tag = {};  // "zeros", "no-relu", "unseen-nan", "nan-weight", "nan-key", or which rows
  Sees sees = Sees::causal;

  double flops() const { return twice(T, S, H, D); }  // if every query saw every key
};

/// The shapes, ranges and hardships of both ops.
std::vector<IndexPlan> index_plans();

/// The definition's scores, and what each may be wrong by. (T, S)
struct IndexScores {
  Tensor<double, 2> scores, allowed;
};

/// Of the inputs of a case, in fp8 with what Hopper may lose. Error: ranges that are none, rows of
/// keys that are not D + 4 bytes.
IndexScores index_scores(Case&);

/// The inputs and scalars that index_scores reads.
const std::vector<InputRule>& index_inputs();

/// Inputs, scalars but topk, flops and bytes; and index_scores of them.
struct IndexProblem {
  Case c;
  Tensor<double, 2> scores, allowed;  // (T, S)
};
IndexProblem index_problem(std::string_view op, const IndexPlan&, std::uint64_t seed);

/// Error: begin and end (T) of a case are no ranges of S keys.
void expect_ranges(const Case&);

/// begin and end (T) of a plan's ranges.
std::pair<Array, Array> ranges(Sees, Index T, Index S);

}  // namespace dsa::verify::kernels
