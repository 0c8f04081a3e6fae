// verify/training/defects.hpp — what goes wrong in optimisers and recipes, as data.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "verify/training/compare.hpp"

namespace dsa::verify {

struct TrainingDefect {
  std::string name;      // "no-clip"
  std::string sentence;  // what the trainer does
  std::function<void(Procedure&)> alter;
  bool of_losses = false;  // it changes losses or gradients; otherwise what is done with them
};

/// All of them that a model with, or without, an indexer may have. `sequences`: of a batch, which
/// some take for the number of micro-batches.
std::vector<TrainingDefect> training_defects(Index sequences, bool has_indexer);

/// Those whose replays lie within the limits of what was found, and beyond those of the recipe's
/// own run, in the order of the list.
std::vector<KnownCause> causes_of(const Comparison&, const Model&, const Recipe&,
                                  const Trajectory& found);

}  // namespace dsa::verify
