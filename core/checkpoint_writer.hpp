// core/checkpoint_writer.hpp — a checkpoint directory, streamed: shards, their index, other files.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/safetensors.hpp"

namespace dsa {

/// Declare all tensors, then append their bytes in the same order. Everything is written to
/// OUT.partial, which commit() renames to OUT; destroyed without commit(), it leaves nothing.
class CheckpointWriter {
 public:
  using Declaration = SafetensorsWriter::Declaration;

  /// Errors: OUT or OUT.partial exists; the disk has less free space than the tensors take.
  /// A shard ends before the tensor that would take it beyond `shard_bytes`; one larger tensor
  /// has a shard of its own.
  CheckpointWriter(std::filesystem::path out, std::vector<Declaration> tensors, Index shard_bytes);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Where the files lie until commit().
  const std::filesystem::path& directory() const { return partial_; }
  Index total_bytes() const { return total_bytes_; }
  std::size_t shards() const { return first_.size(); }

  /// The next bytes of the current tensor, in any number of pieces.
  void append(std::span<const std::byte> bytes);

  /// After the last tensor: the index, where there are several shards.
  void finish_tensors();

  void commit();

 private:
  std::string shard_name(std::size_t shard) const;
  void next_shard();

  std::filesystem::path out_, partial_;
  std::vector<Declaration> tensors_;
  std::vector<std::size_t> first_;    // of each shard: its first tensor
  Index total_bytes_ = 0, left_ = 0;  // left_: bytes of the current shard still to come
  std::size_t shard_ = 0;             // shards begun
  std::optional<SafetensorsWriter> writer_;
  bool committed_ = false;
};

/// True for the parameters that DeepSeek's FP8 releases store in F8_E4M3: the matrices of
/// attention, indexer (but not weights_proj), dense networks, experts and shared experts. Norms,
/// embeddings, lm_head, router, eh_proj and biases stay wider.
bool is_fp8_in_releases(std::string_view parameter);

/// "5GB", "200 MB", "1.5 GiB", "4096": decimal and binary units. `what` begins the sentence.
Index parse_bytes(std::string_view text, const std::string& what);

/// "11.3 GB".
std::string bytes_text(Index bytes);

}  // namespace dsa
