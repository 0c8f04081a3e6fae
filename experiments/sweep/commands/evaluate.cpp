// dsa-sweep evaluate — one checkpoint, measured without training: what `run --checkpoint` runs for
// each of its points.
#include "experiments/sweep/evaluate/evaluate.hpp"

#include <filesystem>
#include <iostream>
#include <memory>

#include "core/file.hpp"
#include "core/outputs.hpp"
#include "core/threads.hpp"
#include "experiments/sweep/commands/commands.hpp"
#include "optimized/train/pipeline/start.hpp"

namespace dsa::sweep {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
};

int run(const Options& options) {
  const train::Settings settings = train::Settings::read(options.config, options.overrides);
  const std::filesystem::path out = settings.text("run.out");
  const Threads scope(train::threads_of(settings));
  const Json summary = evaluate(settings);
  std::filesystem::create_directories(out);
  write_text(out / "summary.json", json_text(summary));
  std::cout << json_text(summary);
  return 0;
}

}  // namespace

cli::Command evaluate_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("evaluate", "what a checkpoint's selection is worth");
  command->add_option("config", options->config, "configuration of dsa-train, for its data")
      ->required();
  command->add_option("overrides", options->overrides,
                      "section.key=value; model.init=DIR is the checkpoint, run.out=DIR gets "
                      "summary.json");
  return {command, [options](const std::string&) { return run(*options); }};
}

}  // namespace dsa::sweep
