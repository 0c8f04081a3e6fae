// experiments/sweep/evaluate/by_position.hpp — how well a selection finds the dense attention's
// mass, by how far into its document a query stands.
#pragma once

#include <functional>
#include <vector>

#include "optimized/train/model.hpp"

namespace dsa::sweep {

/// The queries at positions [from, to) of their documents.
struct Stretch {
  Index from = 0, to = 0;
  Recall recall;  // over all layers that compute an index
};

/// Recalls of one batch, an entry a layer (TrainedModel::recall).
using RecallOf = std::function<std::vector<Recall>(const train::Batch&)>;

/// Every document of the batches alone.
std::vector<train::Batch> documents_of(const std::vector<train::Batch>&);

/// The first n tokens of a document.
train::Batch beginning(const train::Batch& document, Index n);

/// Attention is causal: rows of a beginning are those of the whole document. So a stretch is what
/// a longer beginning has beyond a shorter one:
///   sum over [a, b) = rows(b) mean(b) - rows(a) mean(a).
/// `ends` grow; the first stretch begins at 0. Stretches without a row that counts are left out.
std::vector<Stretch> recall_by_position(const RecallOf&, const std::vector<train::Batch>& documents,
                                        const std::vector<Index>& ends);

}  // namespace dsa::sweep
