#include "run/generate.hpp"

#include <iostream>
#include <memory>

#include "cli/numbers.hpp"
#include "core/checkpoint.hpp"
#include "optimized/engine/arguments.hpp"
#include "run/commands/command.hpp"
#include "run/commands/source.hpp"

namespace dsa::run {
namespace {

constexpr const char* about = R"(
Continues a text, and writes it to stdout as it comes; statistics go to stderr. CHECKPOINT needs
tokenizer.json beside its weights.

The text is a user's message in the model's chat format (v3.1 or v3.2 of DeepSeek; by default what
config.json and the chat template tell), with --think for a model that thinks aloud first; with
--chat none it is sent as it is, so that for DeepSeek it should begin <｜begin▁of▁sentence｜>.
GLM's format is not offered, since it differs from one release to the next under one model_type:
write it out and use --chat none. Special tokens are recognised in the text, as HuggingFace does,
and left out of the output. What is no character in the end, such as half of one, is written as
U+FFFD.

Without --temperature the likeliest token is taken. With it, the same seed draws the same tokens
from the same logits on every machine. It ends at an eos_token_id of generation_config.json (or
config.json), at --max-tokens, or where the context or the memory ends.

--interactive reads one message a line from stdin until it ends. What the model has seen stays in
its cache; what it thought is dropped from later turns, as the formats demand.

Exit status: 0 done, 2 bad usage or input, 130 interrupted by Ctrl-C (a second one ends it at once).

Example: dsa-run generate models/v32 --prompt 'Why is the sky blue?' --temperature 0.6 --top-p 0.95)";

struct Arguments {
  GenerateJob job;
  std::string chat;
  Source source;
  EngineArguments engine;
};

int run(const Arguments& a) {
  GenerateJob job = a.job;
  if (!a.chat.empty()) job.chat = text::chat_format_named(a.chat);
  const EngineOptions options = a.engine.parsed();
  const Backend& backend = backend_named(options.backend);
  if (!job.interactive) job.prompt = a.source.read();
  const LoadModel load = [&] {
    return std::make_unique<Session>(backend.open(open_checkpoint(job.checkpoint), options));
  };
  return generate(job, load, std::cin);
}

}  // namespace

Command generate_command(CLI::App& program) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("generate", about);
  app->add_option("checkpoint", a->job.checkpoint, "Checkpoint directory")
      ->required()
      ->type_name("CHECKPOINT");
  a->source.describe(*app, "The text");
  app->add_flag("--interactive", a->job.interactive, "A conversation, one message a line of stdin")
      ->excludes("--prompt")
      ->excludes("--prompt-file");
  app->add_option("--chat", a->chat, "v3.1, v3.2 or none. Default: the checkpoint's")
      ->type_name("FORMAT");
  app->add_option("--system", a->job.system, "System message")->type_name("TEXT");
  app->add_flag("--think", a->job.think, "Let the model think before it answers");
  cli::add_real(*app, "--temperature", a->job.sampling.temperature, {0, 100},
                "0: the likeliest token")
      ->type_name("T")
      ->capture_default_str();
  cli::add_real(*app, "--top-p", a->job.sampling.top_p, {0, 1},
                "Only the likeliest tokens that together have this probability")
      ->type_name("P")
      ->capture_default_str();
  cli::add_seed(*app, a->job.sampling.seed, "Of the draws")->capture_default_str();
  cli::add_integer(*app, "--max-tokens", a->job.max_tokens, {1, Index{1} << 40}, "Of one answer")
      ->capture_default_str();
  a->engine.describe(*app);
  return {app, [=](const std::string&) { return run(*a); }};
}

}  // namespace dsa::run
