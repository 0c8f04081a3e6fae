// core/recording_jsonl.hpp — the JSON-lines half of read_recording().
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/json.hpp"
#include "core/recording.hpp"

namespace dsa {

/// One record a line, or a list of records a line, as MaxText's checker appends them:
///   {"prompt": string, "tokens": [S ids], "logits": [S rows of V numbers]}
/// "formatted_prompt" is the text that was tokenised, where it is not the prompt; other keys are
/// ignored; logits are rounded to fp32. Errors name the line and the row.
Recording parse_jsonl(std::string_view text, const std::filesystem::path&, const std::string& dtype,
                      Index vocab_size);

/// The ids of a list. Error: it is empty, or holds something that is no integer.
std::vector<Token> token_ids(const Json& ids, const std::string& what);

}  // namespace dsa
