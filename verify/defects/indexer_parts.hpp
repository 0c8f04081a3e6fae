// verify/defects/indexer_parts.hpp — what the files about the indexer and
// its selection share.
#pragma once

#include <vector>

#include "verify/defects/alter.hpp"

namespace dsa::verify {

/// The second half of indexer_defects(): from query, key and head weights to scores.
std::vector<Defect> index_score_defects();

/// The third: scores that are wrong in some rows or for some keys only.
std::vector<Defect> index_place_defects();

/// The second half of selection_defects(): what the attention makes of a selection.
std::vector<Defect> selection_use_defects();

/// Subscripts of row t that may be selected.
std::vector<Index> visible_in(In scores, Index t);

/// Puts keys at the beginning of a row and -1 behind them.
void write_row(View<Index, 1> row, const std::vector<Index>& keys);

/// Arguments of the op indexer_scores without its result.
struct ScoreInputs {
  Tensor<double, 3> q;  // (T, H, D)
  Tensor<double, 2> k;  // (S, D)
  Tensor<double, 2> w;  // (T, H)
  Indexer indexer;
};

/// Runs the inner op on inputs that `change` has rewritten.
void around_score_inputs(Variant&, std::function<void(ScoreInputs&)> change);

/// Runs indexer_scores with one head at a time: H tensors (T, S).
using ScoresOp =
    std::function<void(Name, Out, In3, In, In, const Indexer&, const reference::Visibility&)>;
std::vector<Tensor<double, 2>> scores_by_head(const ScoresOp& inner, Name name, In3 q, In k, In w,
                                              const Indexer&, const reference::Visibility&);

}  // namespace dsa::verify
