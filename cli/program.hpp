// cli/program.hpp — what every program of this project does alike, whatever its commands are.
//
//   int main(int argc, char** argv) {
//     return dsa::cli::run({"dsa-run", about, {logits_command, inspect_command}}, argc, argv);
//   }
//
// Exit status: what the command returned; 2 for wrong usage or bad input, with one line on stderr;
// 130 after SIGINT, SIGTERM or SIGHUP, when every temporary file was removed (a second signal ends
// the program at once).
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace dsa::cli {

/// A command on the command line. `run` is called only if the user gave the command, and returns
/// the exit status; bad input is an Error. `command_line` is for receipts: it can be pasted into a
/// shell.
struct Command {
  CLI::App* app = nullptr;
  std::function<int(const std::string& command_line)> run;
};

struct Program {
  std::string name;   // "dsa-verify"
  std::string about;  // of --help
  std::vector<std::function<Command(CLI::App&)>> commands;
  std::string implied = "";  // the command that is meant where the first word names none
};

int run(const Program&, int argc, char** argv);

/// The words as a shell reads them back.
std::string command_line_of(const std::string& program, int argc, const char* const* argv);

}  // namespace dsa::cli
