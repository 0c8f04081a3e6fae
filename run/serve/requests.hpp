// run/serve/requests.hpp — the JSON of requests, read strictly: a key that would be ignored is an
// error, unless its value asks for nothing.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "text/chat.hpp"
#include "text/sampling.hpp"

namespace dsa::run::serve {

struct Common {
  std::string model;  // empty: not said
  std::optional<Index> max_tokens;
  text::Sampling sampling;
  std::vector<std::string> stop;
  bool stream = false, stream_usage = false;
  std::optional<int> likeliest;  // alternatives beside every token's log-probability
};

using Prompt = std::variant<std::string, std::vector<Token>>;

struct CompletionRequest : Common {
  std::vector<Prompt> prompts;  // at least one
  bool echo = false;
};

struct ChatRequest : Common {
  std::vector<text::Message> messages;
};

// Errors: one sentence that begins "the request".
CompletionRequest completion_request(const std::string& body);
ChatRequest chat_request(const std::string& body);

}  // namespace dsa::run::serve
