// run/stop_tokens.hpp — the tokens that end a model's text.
#pragma once

#include <filesystem>
#include <vector>

#include "text/chat.hpp"

namespace dsa::run {

/// eos_token_id of generation_config.json, or of config.json where that has none: an id, a list or
/// nothing; and the end of an answer in the chat format. Error: a value that is no token id; the
/// tokenizer lacks a token of the format.
std::vector<Token> stop_tokens_of(const std::filesystem::path& checkpoint, text::ChatFormat,
                                  const text::Tokenizer&);

}  // namespace dsa::run
