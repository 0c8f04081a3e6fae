// run/serve/answer.hpp — one answer as it grows, event by event.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "run/serve/job.hpp"
#include "run/serve/text_stream.hpp"

namespace dsa::run::serve {

/// A token, and the character of the text where its own text begins.
struct PlacedToken {
  Scored scored;
  Index offset = 0;
};

class Answer {
 public:
  /// The tokenizer must outlive it. With `echo` the prompt's tokens are a part of the answer.
  Answer(const text::Tokenizer& tokenizer, std::shared_ptr<Ticket> ticket,
         std::vector<std::string> stop, bool echo);
  ~Answer() { ticket_->cancel(); }
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;

  struct Piece {
    std::string text;
    std::vector<PlacedToken> tokens;  // none where they are not asked for
  };

  /// Waits for the next piece. False: there is none; the answer is over, or `is_gone` says that
  /// nobody waits for it. Error: the model failed.
  bool next(Piece&, const std::function<bool()>& is_gone);

  std::string finish_reason() const { return ends_by_length_ ? "length" : "stop"; }
  Index prompt_tokens() const { return static_cast<Index>(ticket_->job().prompt.size()); }
  Index completion_tokens() const { return completion_tokens_; }
  Index cached_tokens() const { return cached_tokens_; }

 private:
  void begin(Piece&);
  void take(const Event&, Piece&);

  const text::Tokenizer& tokenizer_;
  std::shared_ptr<Ticket> ticket_;
  TextStream text_;
  bool echo_, has_begun_ = false, is_over_ = false, ends_by_length_ = false;
  Index completion_tokens_ = 0, cached_tokens_ = 0;
};

}  // namespace dsa::run::serve
