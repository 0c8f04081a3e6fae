#include "run/text_commands.hpp"

#include <iostream>
#include <iterator>

#include "core/check.hpp"
#include "core/checkpoint.hpp"
#include "core/file.hpp"
#include "optimized/engine/session.hpp"

namespace dsa::run {
namespace {

constexpr const char* about_generate = R"(
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

constexpr const char* about_tokenize = R"(
Prints the token ids of a text as a JSON list, which `dsa-run logits --tokens` reads; --decode goes
the other way. CHECKPOINT needs tokenizer.json only: a byte-level BPE as DeepSeek-V3 to V3.2, GLM
and their like have it. The ids are those of HuggingFace tokenizers, with what tokenizer.json's
post_processor puts around a text. One difference: characters that are newer than Unicode 14 may be
cut otherwise.

Text that is not UTF-8, ids out of range and tokenizers of another kind are refused.

Example: echo 'Hello' | dsa-run tokenize models/v32 > tokens.json)";

text::LanguageModel load(const GenerateJob& job, const ChosenEngine& engine) {
  const auto session = std::make_shared<Session>(
      engine.backend.open(open_checkpoint(job.checkpoint), engine.options));
  const Config& config = session->engine().config();
  const Index longest = session->engine().largest_length(), told = config.max_position_embeddings;
  return {config.vocab_size, told > 0 ? std::min(told, longest) : longest,
          [session](std::span<const Token> tokens) { return session->append(tokens); },
          [session](Index n) { session->keep(n); }};
}

}  // namespace

TextCommands::TextCommands(CLI::App& program)
    : generate_(program.add_subcommand("generate", about_generate)),
      tokenize_(program.add_subcommand("tokenize", about_tokenize)) {
  describe_source(*generate_, "The text");
  describe_generate(*generate_);
  describe_source(*tokenize_, "The text, or with --decode a JSON list of ids");
  tokenize_->add_flag("--decode", decode_, "Ids to text");
}

void TextCommands::describe_source(CLI::App& app, const std::string& what) {
  app.add_option("checkpoint", checkpoint_, "Checkpoint directory")
      ->required()
      ->type_name("CHECKPOINT");
  auto* text =
      app.add_option("--prompt", text_, what + ". Default: all of stdin")->type_name("TEXT");
  app.add_option("--prompt-file", file_, "The same from a file")->excludes(text)->type_name("FILE");
}

void TextCommands::describe_generate(CLI::App& app) {
  app.add_flag("--interactive", job_.interactive, "A conversation, one message a line of stdin")
      ->excludes("--prompt")
      ->excludes("--prompt-file");
  app.add_option("--chat", chat_, "v3.1, v3.2 or none. Default: the checkpoint's")
      ->type_name("FORMAT");
  app.add_option("--system", job_.system, "System message")->type_name("TEXT");
  app.add_flag("--think", job_.think, "Let the model think before it answers");
  app.add_option("--temperature", job_.sampling.temperature, "0: the likeliest token")
      ->check(CLI::Range(0.0, 100.0).description(""))
      ->type_name("T")
      ->capture_default_str();
  app.add_option("--top-p", job_.sampling.top_p,
                 "Only the likeliest tokens that together have this probability")
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->type_name("P")
      ->capture_default_str();
  app.add_option("--seed", job_.sampling.seed, "Of the draws")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--max-tokens", job_.max_tokens, "Of one answer")
      ->check(CLI::Range(Index{1}, Index{1} << 40).description(""))
      ->type_name("N")
      ->capture_default_str();
  engine_.describe(app);
}

std::string TextCommands::source(const CLI::App& app) const {
  if (app.count("--prompt") > 0) return text_;
  if (!file_.empty()) return read_text(file_);
  return {std::istreambuf_iterator<char>(std::cin), {}};
}

int TextCommands::generate() {
  job_.checkpoint = checkpoint_;
  if (!chat_.empty()) job_.chat = text::chat_format_named(chat_);
  const ChosenEngine engine = engine_.parsed();
  if (!job_.interactive) job_.prompt = source(*generate_);
  return run::generate(
      job_, [&] { return load(job_, engine); }, std::cin);
}

int TextCommands::tokenize() const {
  const std::string text = source(*tokenize_);
  std::cout << (decode_ ? detokenize(checkpoint_, text) : run::tokenize(checkpoint_, text));
  require(std::cout.flush().good(), "cannot write to stdout");
  return 0;
}

std::optional<int> TextCommands::run() {
  if (generate_->parsed()) return generate();
  if (tokenize_->parsed()) return tokenize();
  return std::nullopt;
}

}  // namespace dsa::run
