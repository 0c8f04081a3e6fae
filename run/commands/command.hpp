// run/commands/command.hpp — the commands of dsa-run, one file each.
#pragma once

#include "cli/program.hpp"

namespace dsa::run {

using cli::Command;

Command logits_command(CLI::App&);
Command generate_command(CLI::App&);
Command tokenize_command(CLI::App&);
Command inspect_command(CLI::App&);
Command convert_command(CLI::App&);
Command jsonl_command(CLI::App&);
Command mmlu_command(CLI::App&);
Command serve_command(CLI::App&);

}  // namespace dsa::run
