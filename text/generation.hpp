// text/generation.hpp — a model, a tokenizer and a prompt: text, as it comes.
#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "optimized/engine/session.hpp"
#include "text/sampling.hpp"
#include "text/tokenizer.hpp"

namespace dsa::text {

/// Error: the tokenizer has ids that the model's vocabulary lacks.
void require_same_vocabulary(const Tokenizer&, const Config&);

struct GenerationOptions {
  Sampling sampling;
  Index max_tokens = 0;
  std::vector<Token> stop;  // ends the text and is not part of it
};

struct Generated {
  enum class End { stop, length, interrupted };
  std::vector<Token> tokens;
  End end = End::length;
  Index prompt_tokens = 0, reused_tokens = 0;  // of the prompt, what the model had seen already
  double prompt_seconds = 0, seconds = 0;      // the latter from the first token on
};

class Generator {
 public:
  /// Both must outlive it; nobody else feeds the session. An Error if the two have different
  /// vocabularies.
  Generator(Session&, const Tokenizer&, GenerationOptions);

  using Emit = std::function<void(std::string_view)>;
  /// Continues the prompt. `emit` gets the text in whole characters, without special tokens, and
  /// may throw; `interrupted` is asked before every token. An Error if the prompt is empty or too
  /// long.
  Generated run(std::span<const Token> prompt, const Emit& emit,
                const std::function<bool()>& interrupted);

 private:
  View<const float, 1> feed(std::span<const Token> prompt, Generated&);
  bool stops(Token) const;

  Session& session_;
  const Tokenizer& tokenizer_;
  GenerationOptions options_;
  std::vector<Token> seen_;  // by the session
  std::uint64_t drawn_ = 0;  // tokens, over all runs
};

}  // namespace dsa::text
