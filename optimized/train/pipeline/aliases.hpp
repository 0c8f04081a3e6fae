// optimized/train/pipeline/aliases.hpp — flag names of other trainers, in terms of our keys.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/json.hpp"

namespace dsa::train {

/// What a foreign flag says in our terms. An empty list: nothing, its value is the only one here.
using Meaning = std::vector<std::pair<std::string, Json>>;

/// MaxText's, the HuggingFace fork's, Megatron's, xtuner's, prime-rl's and llm.c's names, with
/// hyphens or underscores. Nothing: no such name. `where` begins the sentence about a value that
/// cannot be had.
std::optional<Meaning> meaning_of(const std::string& name, const Json& value,
                                  const std::string& where);

}  // namespace dsa::train
