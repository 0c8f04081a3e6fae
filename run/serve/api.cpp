#include "run/serve/api.hpp"

#include <algorithm>
#include <chrono>

#include "core/check.hpp"

namespace dsa::run::serve {
namespace {

/// A failure with a status of its own; other Errors are bad requests.
struct Refusal : Error {
  Refusal(int code, const std::string& sentence) : Error(sentence), status(code) {}
  int status;
};

Index seconds_since_1970() {
  using namespace std::chrono;
  return duration_cast<seconds>(system_clock::now().time_since_epoch()).count();
}

/// Takes as long wherever two keys of one length differ.
bool equal_keys(const std::string& a, const std::string& b) {
  unsigned different = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    different |= static_cast<unsigned>(a[i] ^ b[i]);
  return different == 0;
}

}  // namespace

/// A request that was understood: its answers, and how they are written.
struct Api::Work {
  ReplyHead head;
  bool is_chat = false, stream = false, stream_usage = false, scored = false;
  std::vector<std::shared_ptr<Ticket>> tickets;
  std::vector<std::unique_ptr<Answer>> answers;
  std::function<bool()> is_gone;

  Json choice(std::size_t index, const char* chat_key, const std::string& text) const {
    Json choice = {{"index", index}, {"finish_reason", nullptr}, {"logprobs", nullptr}};
    if (is_chat)
      choice[chat_key] = {{"role", "assistant"}, {"content", text}};
    else
      choice["text"] = text;
    return choice;
  }
  Json logprobs(const text::Tokenizer& tokenizer, const std::vector<PlacedToken>& tokens) const {
    if (!scored) return nullptr;
    return is_chat ? chat_logprobs(tokenizer, tokens) : completion_logprobs(tokenizer, tokens);
  }
};

HttpReply Api::answer(const HttpRequest& request) {
  try {
    return route(request);
  } catch (const Refusal& refusal) {
    HttpReply reply{refusal.status, error_body(refusal.status, refusal.what())};
    if (refusal.status == 429) reply.retry_after = "1";
    return reply;
  } catch (const Error& error) {
    return {400, error_body(400, error.what())};
  } catch (const std::exception& error) {
    return {500, error_body(500, error.what())};
  }
}

HttpReply Api::route(const HttpRequest& request) {
  struct Route {
    const char *method, *path;
    bool open;  // to whoever has no key
    HttpReply (*reply)(Api&, const HttpRequest&);
  };
  static constexpr Route routes[] = {
      {"GET", "/health", true, [](Api& api, const HttpRequest&) { return api.health(); }},
      {"GET", "/v1/models", false, [](Api& api, const HttpRequest&) { return api.models(); }},
      {"POST", "/v1/completions", false,
       [](Api& api, const HttpRequest& r) { return api.completions(r); }},
      {"POST", "/v1/chat/completions", false,
       [](Api& api, const HttpRequest& r) { return api.chat(r); }}};
  const auto found = std::find_if(std::begin(routes), std::end(routes),
                                  [&](const Route& r) { return request.path == r.path; });
  if (found == std::end(routes))
    throw Refusal(404, "there is no path " + in_quotes(request.path) +
                           ", expected /v1/completions, /v1/chat/completions, /v1/models or "
                           "/health");
  if (request.method != found->method)
    throw Refusal(405, std::string(found->path) + " was asked by " + in_quotes(request.method) +
                           ", expected " + found->method);
  if (!found->open && !options_.key.empty() &&
      !equal_keys(request.authorization, "Bearer " + options_.key))
    throw Refusal(401,
                  "the API key is missing or wrong, expected the header Authorization: "
                  "Bearer KEY with the server's --api-key");
  return found->reply(*this, request);
}

HttpReply Api::health() const {
  const auto load = scheduler_.load();
  const bool accepts = scheduler_.is_open();
  return {accepts ? 200 : 503, Json{{"status", accepts ? "ok" : "ending"},
                                    {"running", load.running},
                                    {"waiting", load.waiting}}
                                   .dump()};
}

HttpReply Api::models() const {
  const Json model = {{"id", options_.model},
                      {"object", "model"},
                      {"created", options_.created},
                      {"owned_by", "dsa-run"},
                      {"max_model_len", scheduler_.longest()}};
  return {200, Json{{"object", "list"}, {"data", {model}}}.dump()};
}

HttpReply Api::completions(const HttpRequest& request) {
  const CompletionRequest asked = completion_request(request.body);
  const auto work = new_work(asked, false);
  if (static_cast<int>(asked.prompts.size()) > options_.prompts)
    throw Refusal(400, "the request has " + std::to_string(asked.prompts.size()) +
                           " prompts, expected at most " + std::to_string(options_.prompts) +
                           "; send several requests");
  for (const Prompt& prompt : asked.prompts) {
    const auto* text = std::get_if<std::string>(&prompt);
    add_job(*work, asked,
            text != nullptr ? encode(*text, true) : std::get<std::vector<Token>>(prompt),
            asked.echo);
  }
  return run(work, request);
}

HttpReply Api::chat(const HttpRequest& request) {
  const ChatRequest asked = chat_request(request.body);
  const auto work = new_work(asked, true);
  if (options_.chat == text::ChatFormat::none)
    throw Refusal(400,
                  "the server was started without a chat format; ask /v1/completions, or "
                  "start it with --chat v3.1 or v3.2");
  add_job(*work, asked, encode(text::render(options_.chat, asked.messages, false), false), false);
  return run(work, request);
}

std::shared_ptr<Api::Work> Api::new_work(const Common& asked, bool is_chat) {
  if (!asked.model.empty() && asked.model != options_.model)
    throw Refusal(404, "there is no model " + in_quotes(asked.model) + "; this server has " +
                           in_quotes(options_.model));
  auto work = std::make_shared<Work>();
  work->head = {(is_chat ? "chatcmpl-" : "cmpl-") + std::to_string(++requests_), options_.model,
                seconds_since_1970()};
  work->is_chat = is_chat;
  work->stream = asked.stream;
  work->stream_usage = asked.stream_usage;
  work->scored = asked.likeliest.has_value();
  return work;
}

void Api::add_job(Work& work, const Common& asked, std::vector<Token> prompt, bool echo) {
  require(!prompt.empty(), "the prompt is empty, expected at least one token");
  for (const Token token : prompt)
    require(token < scheduler_.vocab_size(), "the prompt has token id " + std::to_string(token) +
                                                 ", expected ids below " +
                                                 std::to_string(scheduler_.vocab_size()));
  constexpr Index of_completions = 16;  // OpenAI's default
  Job job;
  job.max_tokens =
      limit_of(asked, prompt.size(), work.is_chat ? options_.max_tokens : of_completions);
  job.prompt = std::move(prompt);
  job.sampling = asked.sampling;
  job.likeliest = asked.likeliest;
  job.scores_prompt = echo && asked.likeliest.has_value();
  work.tickets.push_back(std::make_shared<Ticket>(std::move(job)));
  work.answers.push_back(
      std::make_unique<Answer>(tokenizer_, work.tickets.back(), asked.stop, echo));
}

/// How many tokens may follow the prompt.
Index Api::limit_of(const Common& asked, std::size_t prompt_size, Index fallback) const {
  const auto size = static_cast<Index>(prompt_size);
  const Index longest = scheduler_.longest();
  require(size < longest, "the prompt has " + std::to_string(size) +
                              " tokens; with what follows it the model takes " +
                              std::to_string(longest));
  if (!asked.max_tokens) return std::min({fallback, options_.max_tokens, longest - size});
  const Index wanted = *asked.max_tokens;
  require(wanted <= options_.max_tokens,
          "max_tokens is " + std::to_string(wanted) + ", expected at most " +
              std::to_string(options_.max_tokens) + ", the server's --max-tokens");
  require(wanted <= longest - size, "the prompt has " + std::to_string(size) +
                                        " tokens and max_tokens is " + std::to_string(wanted) +
                                        "; together the model takes " + std::to_string(longest));
  return wanted;
}

std::vector<Token> Api::encode(const std::string& text, bool with_template) {
  const std::lock_guard lock(encoding_);
  return tokenizer_.encode(text, with_template);
}

HttpReply Api::run(std::shared_ptr<Work> work, const HttpRequest& request) {
  work->is_gone = request.is_gone;
  switch (scheduler_.submit(work->tickets)) {
    case Scheduler::Answer::full:
      throw Refusal(429, "too many requests wait for the model; try again later");
    case Scheduler::Answer::closed:
      throw Refusal(503, "the server is ending and accepts no more requests");
    case Scheduler::Answer::accepted:
      break;
  }
  if (!work->stream) return whole(*work);
  HttpReply reply;
  reply.events = [this, work](const Send& send) { stream(*work, send); };
  return reply;
}

/// Every answer to its end; nobody reads what is returned if the client hangs up on the way.
HttpReply Api::whole(Work& work) const {
  Json choices = Json::array();
  Usage usage;
  for (std::size_t i = 0; i < work.answers.size(); ++i) {
    Answer& answer = *work.answers[i];
    Answer::Piece all, piece;
    try {
      while (answer.next(piece, work.is_gone)) {
        all.text += piece.text;
        all.tokens.insert(all.tokens.end(), piece.tokens.begin(), piece.tokens.end());
      }
    } catch (const Error& error) {
      throw Refusal(500, error.what());
    }
    Json choice = work.choice(i, "message", all.text);
    choice["finish_reason"] = answer.finish_reason();
    choice["logprobs"] = work.logprobs(tokenizer_, all.tokens);
    choices.push_back(std::move(choice));
    usage.add(answer);
  }
  Json json =
      reply(work.head, work.is_chat ? "chat.completion" : "text_completion", std::move(choices));
  json["usage"] = usage.json();
  return {200, json.dump()};
}

void Api::stream(Work& work, const Send& send) const {
  const char* object = work.is_chat ? "chat.completion.chunk" : "text_completion";
  try {
    for (std::size_t i = 0; i < work.answers.size(); ++i) stream_choice(work, i, send);
  } catch (const std::exception& error) {
    send("data: " + error_body(500, error.what()) + "\n\n");
    return;
  }
  if (work.stream_usage) {
    Usage usage;
    for (const auto& answer : work.answers) usage.add(*answer);
    Json json = reply(work.head, object, Json::array());
    json["usage"] = usage.json();
    send(server_sent(json));
  }
  send("data: [DONE]\n\n");
}

void Api::stream_choice(Work& work, std::size_t index, const Send& send) const {
  const char* object = work.is_chat ? "chat.completion.chunk" : "text_completion";
  bool is_gone = false;
  const auto send_choice = [&](Json choice) {
    is_gone =
        is_gone || !send(server_sent(reply(work.head, object, Json::array({std::move(choice)}))));
  };
  Answer& answer = *work.answers[index];
  if (work.is_chat) send_choice(work.choice(index, "delta", ""));
  for (Answer::Piece piece;
       answer.next(piece, [&] { return is_gone || work.is_gone(); }) && !is_gone;) {
    Json choice = work.choice(index, "delta", piece.text);
    choice["logprobs"] = work.logprobs(tokenizer_, piece.tokens);
    send_choice(std::move(choice));
  }
  Json last = work.choice(index, "delta", "");
  if (work.is_chat) last["delta"] = Json::object();
  last["finish_reason"] = answer.finish_reason();
  send_choice(std::move(last));
}

std::string http_error(int status) {
  return error_body(
      status, status == 413 ? "the request is larger than the server's --max-body"
                            : "the request could not be read, expected HTTP/1.1 with a JSON body");
}

}  // namespace dsa::run::serve
