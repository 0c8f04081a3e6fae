// dsa-sweep run — plans a sweep, and runs the points that have no result yet.
#include <fmt/format.h>

#include <filesystem>
#include <iostream>
#include <memory>

#include "cli/progress.hpp"
#include "core/check.hpp"
#include "core/json.hpp"
#include "experiments/sweep/commands/commands.hpp"
#include "experiments/sweep/estimate.hpp"
#include "experiments/sweep/lock.hpp"
#include "experiments/sweep/runner.hpp"

namespace dsa::sweep {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> words;
  std::string config, out, only, trainer, checkpoint;
  bool dry_run = false, plan = false;
};

bool is_file(const std::string& word) {
  return word.find('=') == std::string::npos &&
         (word.ends_with(".toml") || word.ends_with(".json"));
}

/// The sweep's file, if one is named, with the axes of the command line in place of its own.
Sweep sweep_of(const Options& options) {
  Sweep sweep;
  for (const std::string& word : options.words)
    if (is_file(word)) {
      require(sweep.config.empty(), "two sweep files are named; give one");
      sweep = read_sweep(word);
    }
  if (!options.config.empty()) sweep.config = options.config;
  for (const std::string& word : options.words) {
    if (is_file(word)) continue;
    const Axis axis = parse_axis(word);
    const auto at = std::find_if(sweep.axes.begin(), sweep.axes.end(),
                                 [&](const Axis& a) { return a.name == axis.name; });
    if (at == sweep.axes.end())
      sweep.axes.push_back(axis);
    else
      at->values = axis.values;
  }
  if (!options.checkpoint.empty()) sweep.fixed["model.init"] = options.checkpoint;
  require(!sweep.config.empty(),
          "no configuration is named; give --config FILE.toml of dsa-train, or a sweep's file");
  require(!sweep.axes.empty(), "no axis is given; give one, as in topk=16,32,64");
  return sweep;
}

/// The words that run a point: this program's `evaluate` for a checkpoint, else a trainer.
std::vector<std::string> program_of(const Options& options) {
  const fs::path self = fs::read_symlink("/proc/self/exe");
  if (!options.checkpoint.empty()) return {self.string(), "evaluate"};
  if (!options.trainer.empty()) return {options.trainer};
  return {(self.parent_path() / "dsa-train").string()};
}

/// The program as a plan names it: without the place where it lies.
std::string program_name(const Options& options) {
  std::vector<std::string> words = program_of(options);
  words[0] = fs::path(words[0]).filename();
  return words.size() == 1 ? words[0] : words[0] + " " + words[1];
}

std::string in_words(double seconds) {
  return seconds < 120    ? fmt::format("{:.0f} s", seconds)
         : seconds < 7200 ? fmt::format("{:.0f} min", seconds / 60)
                          : fmt::format("{:.1f} h", seconds / 3600);
}

/// The points with what is known of them, and the sum of what is left.
void print_plan(const Plan& plan, const Options& options) {
  const std::vector<Row> rows = read_rows(options.out).rows;
  const std::vector<Point> points = chosen(plan, options.only);
  double seconds = 0, mib = 0;
  int left = 0, unknown = 0;
  for (const Point& point : points) {
    const auto row =
        std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.id == point.id; });
    const bool done = row != rows.end() && row->done;
    const auto cost = expected(plan, point, rows);
    std::cout << point.id << "  " << name_of(point) << "  "
              << (done                ? "done"
                  : row == rows.end() ? "to run"
                                      : "failed before: " + row->error)
              << '\n';
    if (done) continue;
    ++left;
    unknown += cost ? 0 : 1;
    seconds += cost ? cost->seconds : 0;
    mib = std::max(mib, cost ? cost->mib : 0);
  }
  std::cout << fmt::format("{} points, {} to run", points.size(), left);
  if (left > 0 && unknown == 0)
    std::cout << fmt::format("; by those that ran: {}, peak memory {:.0f} MiB", in_words(seconds),
                             mib);
  if (left > 0 && unknown > 0)
    std::cout << "; time and memory are known once one has run: add --only " << points.front().id;
  std::cout << '\n';
}

void tell(const Point& point, const Row& row, int at, int of) {
  cli::end_progress();
  std::cout << fmt::format("{:>3}/{}  {}  {}  {:.1f} s{}\n", at, of, point.id, name_of(point),
                           row.receipt.at("wall_s").get<double>(),
                           row.done ? "" : "  failed: " + row.error)
            << std::flush;
}

int run(const Options& options) {
  const Sweep sweep = sweep_of(options);
  const Plan plan = make_plan(sweep, program_name(options));
  if (options.dry_run) {
    print_plan(plan, options);
    return 0;
  }
  const std::string program = program_of(options).front();
  require(
      program.find('/') == std::string::npos || fs::exists(program),
      "cannot start " + program + ": there is no such file; build it, or name it with --trainer");
  freeze(plan, options.out);
  if (options.plan) {
    std::cout << plan.points.size() << " points in "
              << (fs::path(options.out) / "plan.json").string() << '\n';
    return 0;
  }
  std::unique_ptr<Lock> alone;
  if (options.only.empty())
    alone = std::make_unique<Lock>(fs::path(options.out) / "sweep.lock",
                                   "another dsa-sweep is at work in " + options.out +
                                       "; wait until it ends, or give another --out");
  if (const std::string repaired = repair(options.out); !repaired.empty())
    std::cerr << "dsa-sweep: " << repaired << '\n';
  const cli::Progress progress = cli::progress();
  const Tally tally = run_points(plan, {options.out, program_of(options), options.only},
                                 [&](const Point& point, const Row& row, int at, int of) {
                                   tell(point, row, at, of);
                                   if (progress) progress("sweep", at, of);
                                 });
  cli::end_progress();
  std::cout << fmt::format("{} done, {} done before, {} failed; results in {}\n", tally.done,
                           tally.skipped, tally.failed, options.out);
  if (tally.failed > 0)
    std::cout
        << "failed points run again when the same command is given again; what each printed is in "
        << (fs::path(options.out) / "points/ID.log").string() << '\n';
  return tally.failed > 0 ? 1 : 0;
}

}  // namespace

cli::Command run_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("run", "run the points of a sweep");
  command->add_option("words", options->words, "a sweep's file, and axes as NAME=VALUE,VALUE")
      ->required();
  command->add_option("--config", options->config, "configuration of dsa-train for every point");
  command->add_option("--out", options->out, "directory of the plan and the results")->required();
  command->add_option("--only", options->only,
                      "one point by its id, or I/N: the I-th of N parts of the plan");
  CLI::Option* trainer =
      command->add_option("--trainer", options->trainer, "another program in place of dsa-train");
  command
      ->add_option("--checkpoint", options->checkpoint,
                   "measure this checkpoint at every point, and train nothing")
      ->excludes(trainer);
  command->add_flag("--plan", options->plan, "write the plan, and run nothing");
  command->add_flag("--dry-run", options->dry_run, "print the points, and what they will take");
  command->footer("Axes, besides any key of the configuration (section.key=VALUE,VALUE):\n" +
                  list_of_axes());
  return {command, [options](const std::string&) { return run(*options); }};
}

}  // namespace dsa::sweep
