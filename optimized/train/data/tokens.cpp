#include "optimized/train/data/tokens.hpp"

#include "core/check.hpp"

namespace dsa::train {
namespace {

using Role = text::Message::Role;

constexpr Token first_role = 2;  // of system, user, assistant
constexpr Token end_of_message = 5;

void put_text(Document& document, const std::vector<Token>& tokens, bool is_answer) {
  for (const Token token : tokens) document.put(token, is_answer);
}

}  // namespace

TextTokens::TextTokens(const std::string& tokenizer, const std::string& chat) {
  if (tokenizer == "bytes") {
    require(chat == "auto" || chat == "plain",
            "data.chat is " + chat +
                ", which needs a tokenizer; set data.tokenizer to a directory "
                "with tokenizer.json, or data.chat to plain");
    return;
  }
  tokenizer_ = std::make_shared<const text::Tokenizer>(text::Tokenizer::read(tokenizer));
  if (chat == "v3.1" || chat == "v3.2") chat_ = text::chat_format_named(chat);
  if (chat == "auto" && std::filesystem::exists(std::filesystem::path(tokenizer) / "config.json"))
    chat_ = text::chat_format_of(tokenizer);
}

Index TextTokens::vocab_size() const { return tokenizer_ ? tokenizer_->size() : 256; }

std::vector<Token> TextTokens::encode(const std::string& text) const {
  if (tokenizer_) return tokenizer_->encode(text, false);
  std::vector<Token> tokens;
  tokens.reserve(text.size());
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

Document TextTokens::conversation(const std::vector<Turn>& turns, const std::string& what) const {
  if (!tokenizer_) return in_bytes(turns);
  require(chat_ != text::ChatFormat::none,
          what + ": messages need a chat format; set data.chat to v3.1 or v3.2");
  return in_format(turns, what);
}

Document TextTokens::in_bytes(const std::vector<Turn>& turns) const {
  Document document;
  for (const Turn& turn : turns) {
    const bool learned = turn.message.role == Role::assistant && turn.trained;
    document.put(first_role + static_cast<Token>(turn.message.role));
    put_text(document, encode(turn.message.content), learned);
    document.put(end_of_message, learned);
  }
  return document;
}

/// The prompt of each answer, as the model is asked for it, holds everything before that answer:
/// what is new in it is context, what lies between two prompts is an answer.
Document TextTokens::in_format(const std::vector<Turn>& turns, const std::string& what) const {
  const Token end = text::end_of_answer(chat_, *tokenizer_);
  const std::string end_text = tokenizer_->bytes_of(end);
  Document document;
  std::string before;
  std::vector<text::Message> messages;
  for (const Turn& turn : turns) {
    if (turn.message.role == Role::assistant) {
      require(!messages.empty() && messages.back().role == Role::user,
              what + ": an assistant's message follows no user's");
      const std::string prompt = text::render(chat_, messages, false);
      require(prompt.starts_with(before),
              what +
                  ": a system message stands behind an answer, which the chat format puts in "
                  "front of it");
      put_text(document, tokenizer_->encode(prompt.substr(before.size()), false), false);
      put_text(document, tokenizer_->encode(turn.message.content, false), turn.trained);
      document.put(end, turn.trained);
      before = prompt + turn.message.content + end_text;
    }
    messages.push_back(turn.message);
  }
  return document;
}

}  // namespace dsa::train
