// run/serve/text_stream.hpp — tokens to text in whole characters, ended by strings.
#pragma once

#include <string>
#include <vector>

#include "text/tokenizer.hpp"
#include "text/utf8.hpp"

namespace dsa::run::serve {

/// A token as answers name it: its text, or "bytes:\xe6\xb7" where that is no UTF-8 by itself, or
/// "token:649" for ids that only fill the model's vocabulary up.
std::string spelled(const text::Tokenizer&, Token);

/// The text has no special tokens, and nothing from the first of the strings in `stop` on. What may
/// turn out to be the beginning of one is held back.
class TextStream {
 public:
  TextStream(const text::Tokenizer& tokenizer, std::vector<std::string> stop)
      : tokenizer_(tokenizer), stop_(std::move(stop)) {}

  /// The text that is certain with this token. A prompt's tokens end nothing.
  std::string push(Token, bool of_prompt);

  /// What is left.
  std::string finish();

  /// A string of `stop` was seen: the text is over.
  bool is_over() const { return is_over_; }

  /// Characters (code points) that are complete, those held back among them.
  Index characters() const { return characters_; }

 private:
  std::string release(std::string text, bool all);

  const text::Tokenizer& tokenizer_;
  std::vector<std::string> stop_;
  text::Utf8Stream utf8_;
  std::string held_;
  Index characters_ = 0;
  bool is_over_ = false;
};

}  // namespace dsa::run::serve
