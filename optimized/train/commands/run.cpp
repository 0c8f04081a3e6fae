#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "cli/interrupts.hpp"
#include "core/threads.hpp"
#include "optimized/ranks/communicator.hpp"
#include "optimized/train/commands/command.hpp"
#include "optimized/train/commands/overrides.hpp"
#include "optimized/train/pipeline/failed_step.hpp"
#include "optimized/train/pipeline/plan.hpp"
#include "optimized/train/pipeline/plan_ranks.hpp"
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

Started by torchrun --no-python, mpirun or srun, the processes divide the micro-batches of a step
(stage.accumulation), and the moments. Results do not depend on their number. With
run.context_ranks=N a micro-batch is divided over N of them by its rows, for rows that are too long for one.

Example: dsa-train data/train/tiny.toml run.out=out/tiny run.threads=2)";

struct Options {
  bool print_config = false, dry_run = false;
  std::string replay;
  std::vector<int> ranks;  // of the plan
  Network network;
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

void print_plan(const Settings& settings, const Options& options) {
  const PlannedModel model = planned_model(settings);
  const std::vector<Stage> stages = stages_of(settings);
  std::cout << plan_text(model, stages);
  if (!options.ranks.empty())
    std::cout << "\n"
              << ranks_text(model, stages, options.ranks, options.network,
                            static_cast<int>(settings.integer("run.context_ranks")));
}

Surroundings surroundings_of(const std::string& command_line, int threads, ProgressLine& line,
                             const cli::PostponedInterrupts& interrupts) {
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
  return around;
}

/// One rank's part; the first one speaks.
int train(const Settings& settings, const std::string& command_line, ranks::Communicator& ranks) {
  const auto& members = ranks.members();
  const Threads share(threads_of(members[static_cast<std::size_t>(ranks.rank())], members));
  const int threads = threads_of(settings);
  const Threads scope(threads);
  const cli::PostponedInterrupts interrupts;
  ProgressLine line;
  Surroundings around = surroundings_of(command_line, threads, line, interrupts);
  if (!ranks.is_first()) {
    around.say = [](const std::string&) {};
    around.progress = [](const Json&, Index, Index) {};
  }
  if (ranks.size() > 1) around.say(fmt::format("{} ranks, {} threads each", ranks.size(), threads));
  Trainer trainer(settings, around, ranks);
  const Outcome outcome = trainer.run();
  line.clear();
  const std::string out = settings.text("run.out");
  if (outcome == Outcome::interrupted)
    around.say(
        fmt::format("interrupted at step {}; the run is saved in {}, the same command goes on",
                    trainer.state().step, out));
  if (outcome == Outcome::completed)
    around.say(
        fmt::format("complete after {} steps; see {}/summary.json", trainer.state().step, out));
  return status_of(outcome);
}

int train(const Settings& settings, const std::string& command_line) {
  const std::filesystem::path out = settings.text("run.out");
  const ranks::Meeting meeting{out / "ranks.json",
                               std::chrono::seconds(settings.integer("run.rank_timeout")),
                               [](const std::string& text) { std::cout << text << std::endl; }};
  const ranks::Place place = ranks::place_of([](const char* name) { return std::getenv(name); });
  ranks::Communicator job = ranks::begin(place, meeting);
  try {
    return with_last_word(
        job, [&](ranks::Communicator& ranks) { return train(settings, command_line, ranks); });
  } catch (const ranks::RankFailure& failure) {
    throw Error(failure.what() + ("; the checkpoints in " + out.string()) +
                " are whole: start the job again, and it goes on at the newest");
  }
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
    print_plan(settings, options);
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
  command->add_option("--ranks", options->ranks, "with --dry-run: the plan for so many processes")
      ->delimiter(',')
      ->allow_extra_args(false)  // overrides follow it
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--rank-gflops", options->network.gflops, "GFLOP/s of a rank")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--link-gbytes", options->network.gbytes, "GB/s that a rank sends")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--link-microseconds", options->network.microseconds, "of a message")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--replay", options->replay,
                      "run the step again that a run left in this directory");
  return {command, [=](const std::string& command_line) {
            return run_words(*options, command->remaining(), command_line);
          }};
}

}  // namespace dsa::train
