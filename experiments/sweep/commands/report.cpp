// dsa-sweep report — sweeps that ran as one HTML page.
#include "experiments/sweep/report/report.hpp"

#include <iostream>
#include <memory>

#include "core/file.hpp"
#include "core/outputs.hpp"
#include "experiments/sweep/commands/commands.hpp"

namespace dsa::sweep {
namespace {

struct Options {
  std::vector<std::string> directories;
  std::string out;
};

int run(const Options& options) {
  check_outputs({options.out}, {});
  std::vector<Study> studies;
  for (const std::string& directory : options.directories) {
    studies.push_back(read_study(directory));
    if (!studies.back().rows.repaired.empty())
      std::cerr << "dsa-sweep: " << studies.back().rows.repaired << '\n';
  }
  write_text(options.out, page_of(studies));
  std::cout << text_of(studies) << "the figures are in " << options.out << '\n';
  return 0;
}

}  // namespace

cli::Command report_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("report", "figures and verdicts as one HTML page");
  command->add_option("directories", options->directories, "directories of sweeps that ran")
      ->required();
  command->add_option("-o,--out", options->out, "the page")->required();
  return {command, [options](const std::string&) { return run(*options); }};
}

}  // namespace dsa::sweep
