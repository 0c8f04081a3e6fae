#include <fmt/format.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <thread>

#include "cli/interrupts.hpp"
#include "cli/numbers.hpp"
#include "core/checkpoint.hpp"
#include "core/checkpoint_writer.hpp"
#include "optimized/engine/arguments.hpp"
#include "run/commands/command.hpp"
#include "run/serve/api.hpp"
#include "run/stop_tokens.hpp"
#include "text/generation.hpp"

namespace dsa::run {
namespace {

namespace fs = std::filesystem;

constexpr const char* about = R"(
Answers requests of OpenAI's API over HTTP: /v1/completions, /v1/chat/completions, /v1/models and
/health. CHECKPOINT needs tokenizer.json beside its weights. Unlike other servers it gives the
log-probability of every token of a prompt: "echo": true with "logprobs": N, as
lm-evaluation-harness' local-completions asks for it.

A prompt is a text or token ids, or a list of them. "stream" sends server-sent events. "temperature"
(default 1), "top_p", "seed" (default 0: the same request gives the same answer), "stop" and
"max_tokens" are known; a key that would be ignored is refused. Errors are JSON with one sentence.

Sequences in work share every pass of the model. --queue more wait; whoever comes then gets status
429. A request whose client hangs up is dropped. A prompt that begins as an earlier one did is not
computed again from the start, unless its tokens are scored.

The address is 127.0.0.1 unless --host says otherwise: there is no encryption. The line "listening
on URL" on stdout says that requests are accepted. SIGTERM and Ctrl-C let running requests finish; a
second one ends the program at once.

Exit status: 0 ended by a signal, all requests answered; 2 bad usage or input.

Example: dsa-run serve models/v32 --port 8000 --api-key secret)";

struct Arguments {
  fs::path checkpoint;
  std::string host = "127.0.0.1", chat, largest_body = "8MB";
  int port = 8000;
  serve::ApiOptions api;
  serve::SchedulerLimits limits;
  Index max_tokens = 4096;
  EngineArguments engine;
};

text::ChatFormat chat_of(const Arguments& a) {
  if (!a.chat.empty()) return text::chat_format_named(a.chat);
  try {
    return text::chat_format_of(a.checkpoint);
  } catch (const Error&) {  // not every checkpoint tells; completions need none
    return text::ChatFormat::none;
  }
}

Index seconds_since_1970() {
  using namespace std::chrono;
  return duration_cast<seconds>(system_clock::now().time_since_epoch()).count();
}

serve::ApiOptions api_options(const Arguments& a, text::ChatFormat chat) {
  serve::ApiOptions options = a.api;
  if (options.model.empty()) options.model = fs::canonical(a.checkpoint).filename().string();
  options.chat = chat;
  options.max_tokens = a.max_tokens;
  options.prompts = a.limits.parallel + a.limits.queue;
  options.created = seconds_since_1970();
  return options;
}

/// Until a signal: then no new requests, and those in work to their ends.
void wait_until_drained(serve::Scheduler& scheduler, const serve::HttpServer& server) {
  const cli::PostponedInterrupts interrupts;
  const auto wait_while = [](const auto& condition) {
    while (condition()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  };
  wait_while([&] { return !interrupts.arrived(); });
  scheduler.close();
  wait_while([&] { return server.in_flight() > 0; });
}

int run(const Arguments& a) {
  const EngineOptions options = a.engine.parsed();
  const Backend& backend = backend_named(options.backend);
  const auto tokenizer = text::Tokenizer::read(a.checkpoint);
  const text::ChatFormat chat = chat_of(a);
  const auto stop = stop_tokens_of(a.checkpoint, chat, tokenizer);
  const auto body_bytes = static_cast<std::size_t>(parse_bytes(a.largest_body, "--max-body"));
  auto engine = backend.open(open_checkpoint(a.checkpoint), options);
  text::require_same_vocabulary(tokenizer, engine->config());

  const std::string what = fmt::format("{}, {} tokens in all sequences together\n", engine->name(),
                                       engine->largest_length());
  serve::Scheduler scheduler(std::move(engine), a.limits, stop);
  serve::Api api(api_options(a, chat), tokenizer, scheduler);
  constexpr int idle = 16;  // connections that ask nothing, or of the server's health
  const serve::HttpServer server(
      a.host, a.port, {body_bytes, a.limits.parallel + a.limits.queue + idle},
      [&api](const serve::HttpRequest& request) { return api.answer(request); }, serve::http_error);
  std::cerr << what;
  std::cout << "listening on http://" << a.host << ":" << server.port() << std::endl;
  wait_until_drained(scheduler, server);
  return 0;
}

void describe_limits(CLI::App& app, Arguments& a) {
  cli::add_integer(app, "--parallel", a.limits.parallel, {1, 4096}, "Sequences in work at once")
      ->capture_default_str();
  cli::add_integer(app, "--queue", a.limits.queue, {0, 4096}, "Sequences that may wait")
      ->capture_default_str();
  cli::add_integer(app, "--max-tokens", a.max_tokens, {1, Index{1} << 40},
                   "That one answer may have")
      ->capture_default_str();
  app.add_option("--max-body", a.largest_body, "Largest request, e.g. 500KB")
      ->type_name("SIZE")
      ->capture_default_str();
}

}  // namespace

Command serve_command(CLI::App& program) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("serve", about);
  app->add_option("checkpoint", a->checkpoint, "Checkpoint directory")
      ->required()
      ->type_name("CHECKPOINT");
  app->add_option("--host", a->host, "Address to listen on")
      ->type_name("ADDRESS")
      ->capture_default_str();
  cli::add_integer(*app, "--port", a->port, {0, 65535}, "Port; 0: any that is free")
      ->capture_default_str();
  app->add_option("--api-key", a->api.key, "Ask for this key. Default: for none")->type_name("KEY");
  app->add_option("--name", a->api.model, "Of the model. Default: the directory's")
      ->type_name("NAME");
  app->add_option("--chat", a->chat, "v3.1, v3.2 or none. Default: the checkpoint's")
      ->type_name("FORMAT");
  describe_limits(*app, *a);
  a->engine.describe(*app);
  return {app, [=](const std::string&) { return run(*a); }};
}

}  // namespace dsa::run
