// optimized/train/data/chat_lines.hpp — a conversation as JSON.
#pragma once

#include <string>
#include <vector>

#include "core/json.hpp"
#include "optimized/train/data/tokens.hpp"

namespace dsa::train {

/// {"messages": [{"role": "user", "content": "..."}, ...]} (OpenAI), or "conversations" with
/// role/content or from/value (ShareGPT). `what` begins the sentence of an Error.
std::vector<Turn> turns_of(const Json&, const std::string& what);

}  // namespace dsa::train
