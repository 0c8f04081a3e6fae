#include <iostream>
#include <memory>

#include "run/commands/command.hpp"
#include "run/commands/source.hpp"
#include "run/generate.hpp"

namespace dsa::run {
namespace {

constexpr const char* about = R"(
Prints the token ids of a text as a JSON list, which `dsa-run logits --tokens` reads; --decode goes
the other way. CHECKPOINT needs tokenizer.json only: a byte-level BPE as DeepSeek-V3 to V3.2, GLM
and their like have it. The ids are those of HuggingFace tokenizers, with what tokenizer.json's
post_processor puts around a text. One difference: characters that are newer than Unicode 14 may be
cut otherwise.

Text that is not UTF-8, ids out of range and tokenizers of another kind are refused.

Example: echo 'Hello' | dsa-run tokenize models/v32 > tokens.json)";

struct Arguments {
  std::string checkpoint;
  Source source;
  bool decode = false;
};

int run(const Arguments& a) {
  const std::string text = a.source.read();
  std::cout << (a.decode ? detokenize(a.checkpoint, text) : tokenize(a.checkpoint, text));
  return 0;
}

}  // namespace

Command tokenize_command(CLI::App& program) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("tokenize", about);
  app->add_option("checkpoint", a->checkpoint, "Checkpoint directory")
      ->required()
      ->type_name("CHECKPOINT");
  a->source.describe(*app, "The text, or with --decode a JSON list of ids");
  app->add_flag("--decode", a->decode, "Ids to text");
  return {app, [=](const std::string&) { return run(*a); }};
}

}  // namespace dsa::run
