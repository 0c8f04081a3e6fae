// optimized/train/commands/command.hpp — the commands of dsa-train, one file each.
#pragma once

#include "cli/program.hpp"

namespace dsa::train {

using cli::Command;

Command run_command(CLI::App&);
Command merge_command(CLI::App&);

}  // namespace dsa::train
