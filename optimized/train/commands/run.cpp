#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "cli/interrupts.hpp"
#include "core/threads.hpp"
#include "optimized/train/commands/command.hpp"
#include "optimized/train/commands/overrides.hpp"
#include "optimized/train/pipeline/failed_step.hpp"
#include "optimized/train/pipeline/plan.hpp"
#include "optimized/train/pipeline/start.hpp"
#include "optimized/train/pipeline/trainer.hpp"

namespace dsa::train {
namespace {

constexpr const char* about = R"(
dsa-train [run] CONFIG.toml [section.key=value ...] trains as CONFIG.toml says. `section.key=value` overrides a key; `stage.key` is that of every stage,
`stage[1].key` of the second, `stage.NAME.key` of those of that name or kind. Flags of MaxText,
the HuggingFace fork, Megatron-LM, xtuner and llm.c stand for keys (--dsa-indexer-loss-coeff 0.01,
indexer_sparse_training=false, -y 1); --print-config says for which. --semantics NAME chooses whose
reading of the indexer's loss is trained: paper, maxtext, megatron, hf-fork, prime-rl or xtuner.
--init-indexer gives the dense checkpoint of model.init a fresh indexer.

The run lies in run.out: config.toml, receipt.json, metrics.jsonl and .csv, tb/, summary.json, and
checkpoints ckpt/step-N/ that HuggingFace's transformers and dsa-run load. A run that was
interrupted goes on where its newest checkpoint is (run.resume). Ctrl-C saves.

Example: dsa-train data/train/tiny.toml run.out=out/tiny run.threads=2)";

struct Options {
  bool print_config = false, dry_run = false;
  std::string replay;
};

/// One line on a terminal, written over and over.
class ProgressLine {
 public:
  void show(const Json& metrics, Index done, Index of) {
    if (!is_terminal_) return;
    std::string line = fmt::format("{} {}/{}", metrics.at("stage").get<std::string>(), done, of);
    const auto add = [&](const char* key, const char* name) {
      if (metrics.contains(key))
        line += fmt::format("  {} {:.4f}", name, metrics[key].get<double>());
    };
    add("loss.lm", "lm");
    add("loss.kl", "kl");
    for (const auto& [key, value] : metrics.items())
      if (key == "recall.indexer") recall_ = fmt::format("  recall {:.3f}", value.get<double>());
    seconds_ += metrics.at("seconds").get<double>();
    ++steps_;
    const double left = seconds_ / static_cast<double>(steps_) * static_cast<double>(of - done);
    line += fmt::format("{}  |g| {:.3f}  {:.3g} k tokens/s  {:.3g} GFLOP/s  {:.0f} s left", recall_,
                        metrics.at("grad_norm").get<double>(),
                        metrics.at("tokens_per_s").get<double>() / 1e3,
                        metrics.at("gflop_per_s").get<double>(), left);
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
    std::fflush(stderr);
  }
  void clear() const {
    if (is_terminal_) std::fprintf(stderr, "\r\033[K");
  }

 private:
  bool is_terminal_ = isatty(STDERR_FILENO) != 0;
  std::string recall_;
  double seconds_ = 0;
  Index steps_ = 0;
};

int status_of(Outcome outcome) {
  if (outcome == Outcome::interrupted) return 130;
  return outcome == Outcome::gate_not_reached ? 1 : 0;
}

void print_plan(const Settings& settings) {
  const Start start = start_of(settings);
  std::cout << plan_text(start.model.config, static_cast<Index>(start.model.weights.mtp.size()),
                         stages_of(settings));
}

int train(const Settings& settings, const std::string& command_line) {
  const int threads = threads_of(settings);
  const Threads scope(threads);
  const cli::PostponedInterrupts interrupts;
  ProgressLine line;
  Surroundings around;
  around.command_line = command_line;
  around.threads = threads;
  around.interrupted = [&] { return interrupts.arrived(); };
  around.say = [&](const std::string& text) {
    line.clear();
    std::cout << text << std::endl;
  };
  around.progress = [&](const Json& metrics, Index done, Index of) {
    line.show(metrics, done, of);
  };
  Trainer trainer(settings, around);
  const Outcome outcome = trainer.run();
  line.clear();
  const std::string out = settings.text("run.out");
  if (outcome == Outcome::interrupted)
    std::cout << "interrupted at step " << trainer.state().step << "; the run is saved in " << out
              << ", the same command goes on" << std::endl;
  if (outcome == Outcome::completed)
    std::cout << "complete after " << trainer.state().step << " steps; see " << out
              << "/summary.json" << std::endl;
  return status_of(outcome);
}

int run_words(const Options& options, const std::vector<std::string>& words,
              const std::string& command_line) {
  if (!options.replay.empty()) {
    std::cout << replay(options.replay);
    return 0;
  }
  const Words sorted = words_of(words);
  require(!sorted.config.empty(),
          "no configuration is named; give a file such as data/train/tiny.toml");
  const Settings settings = Settings::read(sorted.config, sorted.overrides);
  if (options.print_config) {
    std::cout << settings.print();
    return 0;
  }
  if (options.dry_run) {
    print_plan(settings);
    return 0;
  }
  return train(settings, command_line);
}

}  // namespace

Command run_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("run", "train as a TOML file says");
  command->description(about);
  command->allow_extras();
  command->add_flag("--print-config", options->print_config,
                    "print every key with type, default, source and meaning, and train nothing");
  command->add_flag("--dry-run", options->dry_run,
                    "print parameters, memory and operations of every stage, and train nothing");
  command->add_option("--replay", options->replay,
                      "run the step again that a run left in this directory");
  return {command, [=](const std::string& command_line) {
            return run_words(*options, command->remaining(), command_line);
          }};
}

}  // namespace dsa::train
