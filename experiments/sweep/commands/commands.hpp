// experiments/sweep/commands/commands.hpp — the commands of dsa-sweep.
#pragma once

#include "cli/program.hpp"

namespace dsa::sweep {

cli::Command run_command(CLI::App&);
cli::Command report_command(CLI::App&);
cli::Command evaluate_command(CLI::App&);

}  // namespace dsa::sweep
