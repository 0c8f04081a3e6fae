// optimized/train/pipeline/stage.hpp — one stage of a run, from the settings.
#pragma once

#include <string>
#include <vector>

#include "core/recipe.hpp"
#include "optimized/train/pipeline/settings.hpp"

namespace dsa::train {

/// sft is a sparse or dense stage with losses on answers; lora trains adapters alone.
enum class StageKind { pretrain, warmup, sparse, sft, lora };

struct Lora {
  std::vector<std::string> targets;  // regular expressions searched in a matrix's name
  Index r = 8;
  double alpha = 16;
};

struct Stage {
  StageKind kind = StageKind::sparse;
  std::string name;
  Recipe recipe;  // its schedule and accumulation included
  Index steps = 0;
  Index batch = 0, seq = 0;  // rows a step, tokens of a row
  std::vector<std::string> sources;
  std::vector<double> weights;  // one a source
  bool every_target = false;    // of documents with answers, too
  std::vector<Index> levels;
  double advance_at = 0, until_accuracy = 0;
  Index level_steps = 0;
  Lora lora;
};

/// Errors name the stage: rows that no accumulation divides, weights for other sources, an indexer
/// to be trained by a loss of weight 0, ...
std::vector<Stage> stages_of(const Settings&);

}  // namespace dsa::train
