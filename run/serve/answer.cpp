#include "run/serve/answer.hpp"

#include "core/check.hpp"

namespace dsa::run::serve {

Answer::Answer(const text::Tokenizer& tokenizer, std::shared_ptr<Ticket> ticket,
               std::vector<std::string> stop, bool echo)
    : tokenizer_(tokenizer),
      ticket_(std::move(ticket)),
      text_(tokenizer, std::move(stop)),
      echo_(echo) {}

bool Answer::next(Piece& piece, const std::function<bool()>& is_gone) {
  piece = {};
  if (!has_begun_) begin(piece);
  while (!is_over_ && piece.text.empty() && piece.tokens.empty()) {
    if (is_gone()) return false;  // asked at every token: they may come without a pause
    if (const auto event = ticket_->next(std::chrono::milliseconds(50))) take(*event, piece);
  }
  return !piece.text.empty() || !piece.tokens.empty();
}

/// The prompt is echoed at once, unless its tokens come with their log-probabilities.
void Answer::begin(Piece& piece) {
  has_begun_ = true;
  if (!echo_ || ticket_->job().scores_prompt) return;
  for (const Token token : ticket_->job().prompt) piece.text += text_.push(token, true);
}

void Answer::take(const Event& event, Piece& piece) {
  if (event.is_last()) {
    require(event.kind != Event::Kind::failed, event.sentence);
    is_over_ = true;
    ends_by_length_ = event.kind == Event::Kind::length;
    cached_tokens_ = event.cached_tokens;
    piece.text += text_.finish();
    return;
  }
  const bool of_prompt = event.kind == Event::Kind::prompt_token;
  const Index offset = text_.characters();
  piece.text += text_.push(event.scored.token, of_prompt);
  if (ticket_->job().likeliest) piece.tokens.push_back({event.scored, offset});
  if (!of_prompt) ++completion_tokens_;
  if (!text_.is_over()) return;
  is_over_ = true;  // by one of the strings that end it: the model need not go on
  ticket_->cancel();
}

}  // namespace dsa::run::serve
