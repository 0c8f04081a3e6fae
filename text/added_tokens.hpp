// text/added_tokens.hpp — tokens found in the text before anything else is done to it.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/recording.hpp"
#include "text/regex.hpp"

namespace dsa::text {

/// An entry of tokenizer.json's "added_tokens".
struct AddedToken {
  Token id = 0;
  std::string content;
  bool special = false;      // left out of decoded text where special tokens are not wanted
  bool normalized = true;    // looked for in the normalised text
  bool single_word = false;  // only where no word character is beside it
  bool lstrip = false, rstrip = false;  // takes the white space on its left, its right, along
};

/// A part of a text: an added token, or what lies between two of them.
struct Section {
  std::optional<Token> token;
  std::string_view text;
};

/// Finds tokens: the leftmost, and of those the longest, as HuggingFace does.
class AddedTokens {
 public:
  void add(AddedToken);
  std::vector<Section> sections_of(std::string_view utf8) const;

 private:
  const AddedToken* find(std::string_view utf8, std::size_t at) const;
  bool is_apart(std::string_view utf8, std::size_t begin, std::size_t end) const;

  std::array<std::vector<AddedToken>, 256> by_first_byte_;  // longest first
  // As in Rust's regex crate, which HuggingFace asks here.
  Regex word_ = Regex::native("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]");
  Regex space_ = Regex::native("\\p{White_Space}");
};

}  // namespace dsa::text
