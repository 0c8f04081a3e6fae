// experiments/sweep/evaluate/evaluate.hpp — a checkpoint as it is: what its selection finds, and
// what it costs. Nothing is trained.
#pragma once

#include "core/json.hpp"
#include "optimized/train/pipeline/settings.hpp"

namespace dsa::sweep {

/// Of the checkpoint model.init, with K = model.index_topk, on the held-out documents of the last
/// stage's sources:
///   sources.NAME.dense, .sparse    loss and accuracy of the targets with either attention
///               .kl_to_dense       mean over rows of KL( dense model || sparse model ), nats
///               .recall            of the indexer, and of random, recent and best keys
///               .recall, FORMAT indexer   with q and k rounded (train::recall_in_formats)
///               .by_position.B     the same for queries before position B, in quarters of data.seq
/// Errors: no checkpoint, no indexer in it, no row with more than 4 K visible keys.
Json evaluate(const train::Settings&);

}  // namespace dsa::sweep
