// run/serve/replies.hpp — answers as OpenAI's API spells them in JSON.
#pragma once

#include "core/json.hpp"
#include "run/serve/answer.hpp"

namespace dsa::run::serve {

/// {"error": {"message", "type", "param": null, "code": null}}, as text.
std::string error_body(int status, const std::string& sentence);

/// What all replies to one request have in common.
struct ReplyHead {
  std::string id, model;
  Index created = 0;  // seconds since 1970
};

struct Usage {
  Index prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;
  void add(const Answer&);
  Json json() const;
};

/// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}.
Json completion_logprobs(const text::Tokenizer&, const std::vector<PlacedToken>&);

/// {"content": [{"token", "logprob", "bytes", "top_logprobs"}]}.
Json chat_logprobs(const text::Tokenizer&, const std::vector<PlacedToken>&);

/// A reply, or a piece of a streamed one, of type `object`.
Json reply(const ReplyHead&, const char* object, Json choices);

/// "data: JSON", and an empty line.
std::string server_sent(const Json&);

}  // namespace dsa::run::serve
