// run/serve/api.hpp — OpenAI's API on a scheduler: what is asked by which path, and the answers.
//
//   GET  /health                whether requests are accepted, and how many there are
//   GET  /v1/models             the one model
//   POST /v1/completions        texts or token ids; `echo` with `logprobs` scores every token
//   POST /v1/chat/completions   a conversation in the model's chat format
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "run/serve/answer.hpp"
#include "run/serve/http.hpp"
#include "run/serve/replies.hpp"
#include "run/serve/requests.hpp"
#include "run/serve/scheduler.hpp"
#include "text/chat.hpp"

namespace dsa::run::serve {

struct ApiOptions {
  std::string model;                               // its name in requests and replies
  std::string key;                                 // empty: none is asked for
  text::ChatFormat chat = text::ChatFormat::none;  // none: no conversations
  Index max_tokens = 0;                            // of one answer
  int prompts = 0;                                 // of one request
  Index created = 0;                               // of the model's entry, seconds since 1970
};

class Api {
 public:
  /// All must outlive it.
  Api(ApiOptions options, const text::Tokenizer& tokenizer, Scheduler& scheduler)
      : options_(std::move(options)), tokenizer_(tokenizer), scheduler_(scheduler) {}

  /// From any number of threads. Every failure is a reply with a sentence.
  HttpReply answer(const HttpRequest&);

 private:
  struct Work;

  HttpReply route(const HttpRequest&);
  HttpReply health() const;
  HttpReply models() const;
  HttpReply completions(const HttpRequest&);
  HttpReply chat(const HttpRequest&);
  HttpReply run(std::shared_ptr<Work>, const HttpRequest&);
  HttpReply whole(Work&) const;
  void stream(Work&, const Send&) const;
  void stream_choice(Work&, std::size_t index, const Send&) const;

  std::shared_ptr<Work> new_work(const Common&, bool is_chat);
  void add_job(Work&, const Common&, std::vector<Token> prompt, bool echo);
  std::vector<Token> encode(const std::string&, bool with_template);
  Index limit_of(const Common&, std::size_t prompt_size, Index fallback) const;

  ApiOptions options_;
  const text::Tokenizer& tokenizer_;
  Scheduler& scheduler_;
  std::mutex encoding_;  // a tokenizer encodes for one thread at a time
  std::atomic<Index> requests_ = 0;
};

/// The body of a reply to what never reached an Api.
std::string http_error(int status);

}  // namespace dsa::run::serve
