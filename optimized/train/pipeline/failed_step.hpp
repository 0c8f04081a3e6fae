// optimized/train/pipeline/failed_step.hpp — the batch of a step whose loss was no finite number.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "optimized/train/batch.hpp"

namespace dsa::train {

/// tokens, positions, begin and target_weight of every micro-batch, as I.tokens and so on.
void write_batches(const std::filesystem::path& file, const std::vector<Batch>&);
std::vector<Batch> read_batches(const std::filesystem::path& file);

/// Runs the step of a directory that a failed run left (config.toml, a checkpoint, the batch)
/// again, without changing anything: its losses, and every parameter whose gradient is not finite.
std::string replay(const std::filesystem::path& directory);

}  // namespace dsa::train
