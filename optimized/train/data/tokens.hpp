// optimized/train/data/tokens.hpp — text and conversations as documents of tokens.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "optimized/train/data/document.hpp"
#include "text/chat.hpp"
#include "text/tokenizer.hpp"

namespace dsa::train {

/// One message of a conversation as it stands in a file.
struct Turn {
  text::Message message;
  bool trained = true;  // an assistant's message; false: it is context only
};

/// Bytes, or a checkpoint's tokenizer with its chat format.
///
/// Bytes: a text is its bytes. A message is 2 (system), 3 (user) or 4 (assistant), its text, and 5;
/// what is learned of an assistant's message is its text and the 5.
class TextTokens {
 public:
  /// "bytes", or a directory with tokenizer.json. `chat`: "auto", "plain", "v3.1" or "v3.2".
  TextTokens(const std::string& tokenizer, const std::string& chat);

  /// Nothing of it is an answer.
  std::vector<Token> encode(const std::string& text) const;

  /// Answers: the assistant's messages that are trained, each with the token that ends it.
  /// `what` begins the sentence about a conversation that the format cannot express.
  Document conversation(const std::vector<Turn>&, const std::string& what) const;

  Index vocab_size() const;

 private:
  Document in_bytes(const std::vector<Turn>&) const;
  Document in_format(const std::vector<Turn>&, const std::string& what) const;

  std::shared_ptr<const text::Tokenizer> tokenizer_;  // null: bytes
  text::ChatFormat chat_ = text::ChatFormat::none;
};

}  // namespace dsa::train
