// optimized/train/pipeline/state.hpp — what a run is made of at one moment, and its checkpoints.
//
//   OUT/ckpt/step-N/  config.json, model.safetensors    as HuggingFace's transformers loads them
//                     state.safetensors                 moments NAME.m, NAME.v; adapters
//                     NAME.lora_A,
//                                                       NAME.lora_B; the State as JSON
//                     tokenizer.json, ...               of the tokenizer's directory
//
// Every random number is a function of (seed, index): there is no generator to be saved. Adapters
// lie beside the weights they are on, which are those of the base, unchanged.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "core/json.hpp"
#include "optimized/train/data/feed.hpp"
#include "optimized/train/pipeline/lora.hpp"
#include "optimized/train/pipeline/optimizer.hpp"

namespace dsa::train {

/// Where a run stands: after `step` steps of the optimiser.
struct State {
  Index step = 0;
  std::size_t stage = 0;  // the next step's; one beyond the last when the run is complete
  Index stage_step = 0;
  std::size_t level = 0;
  Index level_step = 0;  // steps at this level
  Index tokens = 0;
  Cursor cursor;
  Json settings;  // those that change numbers
  friend bool operator==(const State&, const State&) = default;
};

Json to_json(const State&);

/// What is written, beside the State.
struct Snapshot {
  const Json& config;
  const Parameters& parameters;
  const Config& parsed;
  const Optimizer& optimizer;
  const Adapters* adapters = nullptr;  // null: none
  std::filesystem::path tokenizer;     // empty: bytes
};

/// Writes the directory under a temporary name, syncs every file to the disk, and renames it. All
/// ranks call it, and the first writes: the files do not tell how many there were.
void save_checkpoint(const std::filesystem::path& directory, const State&, const Snapshot&,
                     bool writes);

/// The State of a checkpoint. Errors: no state.safetensors (a checkpoint of somebody else), a file
/// that was cut short or is of another version.
State read_state(const std::filesystem::path& checkpoint);

/// Moments of the parameters that are in `trained`; an Error where one is missing or has another
/// shape.
void read_moments(const std::filesystem::path& checkpoint, const std::vector<Trained>& trained,
                  Optimizer&);

/// A and B; an Error likewise.
void read_adapters(const std::filesystem::path& checkpoint, Adapters&);

/// Checkpoints of DIR, by step.
std::map<Index, std::filesystem::path> checkpoints_of(const std::filesystem::path& directory);

/// Removes all but the newest `keep_last` ones and multiples of `major_every` (0: none).
void remove_old_checkpoints(const std::filesystem::path& directory, Index keep_last,
                            Index major_every);

}  // namespace dsa::train
