// run/tokens.hpp — token ids from a file.
#pragma once

#include <filesystem>
#include <vector>

#include "core/recording.hpp"

namespace dsa::run {

/// The format is told by the content:
///   JSON         a list of ids, or a list of such lists: [[1, 2, 3], [4, 5]]
///   JSON lines   one of these, or an object with "tokens", a line; other keys are ignored
///   safetensors  tokens (B, S) or (S), attention_mask; logits and traces are ignored
/// Error: the file is none of them, a sequence is empty, an id is not in [0, vocab_size).
std::vector<Sequence> read_tokens(const std::filesystem::path&, Index vocab_size);

}  // namespace dsa::run
