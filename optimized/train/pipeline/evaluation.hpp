// optimized/train/pipeline/evaluation.hpp — how good a model is on held-out documents.
//
// The ranks of a job divide the batches, and add what each gave in the order of the batches. All
// call these functions, and get the same answer.
#pragma once

#include <string>
#include <vector>

#include "core/json.hpp"
#include "optimized/ranks/collectives.hpp"
#include "optimized/train/data/feed.hpp"
#include "optimized/train/model.hpp"
#include "optimized/train/pipeline/stage.hpp"

namespace dsa::train {

/// Of one source.
struct Score {
  double lm = 0;        // mean cross entropy of the targets, nats
  double accuracy = 0;  // share of targets that are the likeliest token
  Index targets = 0;
};

/// Whose keys attention reads, and what a report calls it: "dense", "sparse", "sparse, recent
/// keys".
struct Attending {
  std::string name;
  Recipe::Attention attention = Recipe::Attention::sparse;
  Selector selector = Selector::indexer;
  IndexFormat format = IndexFormat::exact;
};

Score score_of(TrainedModel&, const std::vector<Batch>&, const Attending&, ranks::Communicator&);

/// Over all layers that compute an index, of one list of batches.
struct IndexerScore {
  double kl = 0;  // as the stage's semantics has it
  Recall recall;
};
IndexerScore indexer_score_of(TrainedModel&, const std::vector<Batch>&, const Recipe&,
                              ranks::Communicator&);

/// {"recall, fp8 indexer": ...}: with q and k rounded to each IndexFormat that the indexer's head
/// size allows.
Json recall_in_formats(TrainedModel&, const std::vector<Batch>&, ranks::Communicator&);

struct Evaluation {
  Json metrics = Json::object();  // "eval.SOURCE.lm", "eval.kl", "recall.indexer", ...
  double accuracy = 1;            // the lowest of the tasks'; 1 without one
  bool has_task = false;
};

/// Everything, with the stage's attention; tasks at a level.
Evaluation evaluate(TrainedModel&, const Feed&, const Stage&, std::size_t level,
                    ranks::Communicator&);

/// The end of a run: loss and accuracy of each source with dense attention, with the indexer's
/// selection, with as many recent, random and best keys, and with a fresh indexer's; what of the
/// teacher's mass the indexer finds, before and after its training, and in the formats that it may
/// be served in.
Json final_evaluation(TrainedModel&, const Feed&, const Stage&, std::uint64_t seed,
                      ranks::Communicator&);

/// Its lines for a reader.
std::vector<std::string> table_of(const Json& final_evaluation);

}  // namespace dsa::train
