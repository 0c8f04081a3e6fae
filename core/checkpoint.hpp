// core/checkpoint.hpp — a HuggingFace checkpoint directory as a Model, decoded lazily.
//
//   DIR/config.json, and DIR/model.safetensors or DIR/model.safetensors.index.json + shards.
// Experts may be stored one by one (mlp.experts.E.gate_proj.weight, ...) or packed
// (mlp.experts.gate_up_proj (E, 2F, C), mlp.experts.down_proj (E, C, F)), FP8 included. Names may
// have a wrapper's prefix (language_model.model., base_model.model.model., ...).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/safetensors.hpp"
#include "core/weights.hpp"

namespace dsa {

/// The tensors of a checkpoint directory, before anything is known of the model: index and shards
/// are checked against each other (a listed tensor is in the shard named for it, a stored tensor
/// is listed, every shard exists).
struct StoredCheckpoint {
  std::filesystem::path directory;
  std::vector<SafetensorsFile> shards;
  /// Under the names that this repository knows: "model.layers...", "lm_head.weight".
  std::map<std::string, const StoredTensor*> tensors;
  /// The block scales that are no aligned F32 (BF16, F16, F8_E8M0), as F32.
  std::map<std::string, std::vector<float>> scales;
  std::string prefix = "model.";      // of the names in the files
  std::vector<std::string> outside;   // tensors of a wrapper that are not the language model's
  std::vector<std::string> unlisted;  // .safetensors files of the directory that no index lists

  static StoredCheckpoint open(const std::filesystem::path& directory);
  StoredCheckpoint(StoredCheckpoint&&) = default;
  StoredCheckpoint() = default;

 private:
  void take(const std::map<std::string, const StoredTensor*>& as_named);
  void keep_scales(const std::string& name, const StoredTensor&);
};

/// What stands in the way of a checkpoint being this config's model.
struct CheckpointProblems {
  std::vector<std::string> missing, extra, misshaped, unreadable;  // one sentence each
  std::vector<std::string> unused;  // names; harmless: indexers of layers that share a selection
  bool none() const {
    return missing.empty() && extra.empty() && misshaped.empty() && unreadable.empty();
  }
};

/// Nothing is wrong but that every tensor of every indexer is missing: a dense checkpoint under the
/// name of a sparse model.
bool lacks_only_the_indexer(const StoredCheckpoint&, const CheckpointProblems&);

/// Ties stored tensors to the parameters of `config`: fills weights, lists problems. MTP blocks
/// are kept if all of their tensors are there and dropped from the weights if none is.
CheckpointProblems bind(const StoredCheckpoint&, const Config&, Weights&);

/// The model in a directory. The first problem is thrown as one sentence (and how many more).
/// Nothing is decoded: a forward pass reads the rows it needs from the mapped files.
Model open_checkpoint(const std::filesystem::path& directory);

/// The same model with every parameter decoded to F64 in memory: for models that are run often.
/// `limit_bytes`: models that would take more stay as they are.
Model resident(Model, Index limit_bytes);

}  // namespace dsa
