// experiments/bench/bench.hpp — the commands of dsa-bench, one file each.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace dsa::bench {

/// A command on the command line. `run` returns the exit status; bad input is an Error.
struct Command {
  CLI::App* app = nullptr;
  std::function<int()> run;
};

Command model_command(CLI::App&);
Command ops_command(CLI::App&);
Command growth_command(CLI::App&);
Command cuda_command(CLI::App&);

}  // namespace dsa::bench
