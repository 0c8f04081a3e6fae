// experiments/bench/bench.hpp — the commands of dsa-bench, one file each.
#pragma once

#include "cli/numbers.hpp"
#include "cli/program.hpp"

namespace dsa::bench {

using cli::Command;

Command model_command(CLI::App&);
Command ops_command(CLI::App&);
Command growth_command(CLI::App&);
Command cuda_command(CLI::App&);

}  // namespace dsa::bench
