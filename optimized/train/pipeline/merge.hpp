// optimized/train/pipeline/merge.hpp — a checkpoint with its adapters as a plain model.
#pragma once

#include <filesystem>
#include <string>

namespace dsa::train {

/// Writes `out`: config.json, model.safetensors with W + (alpha / r) B A in the place of W, and the
/// tokenizer's files. Returns a sentence about it. Error: the checkpoint has no adapters.
std::string merge_adapters(const std::filesystem::path& checkpoint,
                           const std::filesystem::path& out);

}  // namespace dsa::train
