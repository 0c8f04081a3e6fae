#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>

#include "cli/numbers.hpp"
#include "core/build_info.hpp"
#include "core/checkpoint.hpp"
#include "core/file.hpp"
#include "core/outputs.hpp"
#include "core/sha256.hpp"
#include "optimized/engine/arguments.hpp"
#include "run/commands/command.hpp"
#include "run/mmlu/report.hpp"

namespace dsa::run {
namespace {

namespace fs = std::filesystem;

constexpr const char* about = R"(
Asks MMLU's questions and counts right answers: the score of a port beside that of its original.
DIR has the layout of the release: test/SUBJECT_test.csv and dev/SUBJECT_dev.csv for 57 subjects,
without a header. CHECKPOINT needs tokenizer.json beside its weights.

The prompt is that of lm-evaluation-harness' task mmlu, with --shots examples of dev/. The answer is
the letter A to D with the largest log-likelihood after "Answer:". Accuracies of groups and of all
are means over questions; +- is the standard error. lm_eval with the model dsa of the Python
package gives the same numbers (docs/python.md).

Examples are run once a subject: what a prompt shares with the one before it stays in the cache.
--json also has the log-likelihood of every choice.

Exit status: 0 done, 2 bad usage or input, 130 interrupted.

Example: dsa-run mmlu models/v32 --data mmlu --format bf16 --json scores.json)";

struct Arguments {
  fs::path checkpoint, data, json;
  std::vector<std::string> subjects;
  int shots = 5, limit = 0;
  EngineArguments engine;
};

/// One hash of every file of the data, names included.
std::string data_sha256(const fs::path& dir) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(dir))
    if (entry.path().extension() == ".csv") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::string all;
  for (const fs::path& file : files)
    all += sha256_of_file(file) + "  " + fs::relative(file, dir).string() + "\n";
  return sha256(std::as_bytes(std::span(all)));
}

Json receipt_of(const Arguments& a, const std::string& engine, const std::string& command_line) {
  return {{"version", build_info().version},
          {"commit", build_info().commit},
          {"compiler", build_info().compiler},
          {"command", command_line},
          {"checkpoint", a.checkpoint.string()},
          {"config_sha256", sha256_of_file(a.checkpoint / "config.json")},
          {"tokenizer_sha256", sha256_of_file(a.checkpoint / "tokenizer.json")},
          {"data_sha256", data_sha256(a.data)},
          {"engine", engine},
          {"shots", a.shots}};
}

int run(const Arguments& a, const std::string& command_line) {
  check_outputs({a.json}, {a.checkpoint, a.data});
  const EngineOptions options = a.engine.parsed();
  const Backend& backend = backend_named(options.backend);
  const auto subjects = mmlu::read_subjects(a.data, a.subjects, a.shots, a.limit);
  const auto tokenizer = text::Tokenizer::read(a.checkpoint);
  Session session(backend.open(open_checkpoint(a.checkpoint), options));

  const auto start = std::chrono::steady_clock::now();
  const auto scores = mmlu::evaluate(subjects, a.shots, tokenizer, session, cli::progress());
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  cli::end_progress();
  if (!a.json.empty()) {
    Json report = mmlu::as_json(scores);
    report["receipt"] = receipt_of(a, session.engine().name(), command_line);
    report["seconds"] = seconds;
    write_text(a.json, json_text(report));
  }
  std::cout
      << mmlu::as_text(scores)
      << fmt::format(
             "{}, {} examples in each prompt; {:.3g} s for prompts of {} tokens, {} of them in the "
             "cache\n",
             session.engine().name(), a.shots, seconds, scores.tokens, scores.reused_tokens);
  return 0;
}

}  // namespace

Command mmlu_command(CLI::App& program) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("mmlu", about);
  app->add_option("checkpoint", a->checkpoint, "Checkpoint directory")
      ->required()
      ->type_name("CHECKPOINT");
  app->add_option("--data", a->data, "MMLU's directory, with dev/ and test/")
      ->required()
      ->type_name("DIR");
  app->add_option("--subjects", a->subjects, "Names such as anatomy,virology. Default: all of DIR")
      ->delimiter(',')
      ->allow_extra_args(false)  // CHECKPOINT may follow it
      ->type_name("NAMES");
  cli::add_integer(*app, "--shots", a->shots, {0, 100}, "Examples in the prompt")
      ->capture_default_str();
  cli::add_integer(*app, "--limit", a->limit, {1, 1 << 20},
                   "The first questions of each subject. Default: all");
  app->add_option("--json", a->json, "Write scores, log-likelihoods and a receipt to this file")
      ->type_name("FILE");
  a->engine.describe(*app);
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::run
