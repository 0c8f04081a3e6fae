// text/same_text.hpp — whether token ids are those of a text.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "text/tokenizer.hpp"

namespace dsa::text {

/// Empty where `tokens` begin with the ids of `text`, alone, as the post_processor frames it, or
/// behind special tokens; else the first id that differs, in words.
std::string difference_from_text(const Tokenizer&, std::string_view text,
                                 std::span<const Token> tokens);

}  // namespace dsa::text
