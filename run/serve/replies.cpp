#include "run/serve/replies.hpp"

namespace dsa::run::serve {
namespace {

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

/// Bytes that are not UTF-8, of a file's name say, become U+FFFD: no reply fails to be written.
std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

Json bytes_of(const text::Tokenizer& tokenizer, Token token) {
  Json list = Json::array();
  if (token < tokenizer.size())
    for (const char c : tokenizer.bytes_of(token)) list.push_back(static_cast<unsigned char>(c));
  return list;
}

Json chat_token(const text::Tokenizer& tokenizer, Token token,
                const std::optional<double>& log_probability) {
  return {{"token", spelled(tokenizer, token)},
          {"logprob", number_or_null(log_probability)},
          {"bytes", bytes_of(tokenizer, token)}};
}

}  // namespace

std::string error_body(int status, const std::string& sentence) {
  return text_of({{"error",
                   {{"message", sentence},
                    {"type", type_of(status)},
                    {"param", nullptr},
                    {"code", nullptr}}}});
}

void Usage::add(const Answer& answer) {
  prompt_tokens += answer.prompt_tokens();
  completion_tokens += answer.completion_tokens();
  cached_tokens += answer.cached_tokens();
}

Json Usage::json() const {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", cached_tokens}}}};
}

Json completion_logprobs(const text::Tokenizer& tokenizer, const std::vector<PlacedToken>& tokens) {
  Json names = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const auto& [scored, offset] : tokens) {
    names.push_back(spelled(tokenizer, scored.token));
    values.push_back(number_or_null(scored.log_probability));
    offsets.push_back(offset);
    Json top = Json::object();
    for (const auto& [token, value] : scored.likeliest)  // of two spelled alike, the likelier
      top.emplace(spelled(tokenizer, token), value);
    tops.push_back(scored.log_probability ? std::move(top) : Json());
  }
  return {{"tokens", std::move(names)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

Json chat_logprobs(const text::Tokenizer& tokenizer, const std::vector<PlacedToken>& tokens) {
  Json content = Json::array();
  for (const auto& [scored, offset] : tokens) {
    Json entry = chat_token(tokenizer, scored.token, scored.log_probability);
    entry["top_logprobs"] = Json::array();
    for (const auto& [token, value] : scored.likeliest)
      entry["top_logprobs"].push_back(chat_token(tokenizer, token, value));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

Json reply(const ReplyHead& head, const char* object, Json choices) {
  return {{"id", head.id},
          {"object", object},
          {"created", head.created},
          {"model", head.model},
          {"choices", std::move(choices)}};
}

std::string server_sent(const Json& json) { return "data: " + text_of(json) + "\n\n"; }

}  // namespace dsa::run::serve
