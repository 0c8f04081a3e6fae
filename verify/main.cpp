// dsa-verify — the judge, from the command line.
#include <CLI/CLI.hpp>
#include <iostream>

#include "verify/commands/command.hpp"

namespace {

using namespace dsa::verify;

constexpr const char* about = R"(dsa-verify: is this output what the model's definition says?

The definition is a double-precision reference of DeepSeek-V2, V3, V3.2 and GLM-5 with sparse
attention. Limits are derived from perturbed runs of it at the declared precision, never built in.

  dsa-verify golden CHECKPOINT GOLDEN                    is this golden right?
  dsa-verify golden CHECKPOINT GOLDEN --candidate FILE   is my implementation right?
  dsa-verify diagnose CHECKPOINT CANDIDATE               which known defect explains it?
  dsa-verify localise CHECKPOINT CANDIDATE               which op of my implementation is wrong?
  dsa-verify power CHECKPOINT GOLDEN                     which known defects could it see?
  dsa-verify gradients CHECKPOINT GOLDEN                 are these the right gradients?
  dsa-verify invariants CHECKPOINT                       what needs no golden
  dsa-verify ops                                         are the kernels right, one by one?
  dsa-verify samples DIR                                 judge every golden of a directory

Exit status: 0 pass, 1 fail, 2 usage or bad input, 3 inconclusive.)";

/// One line, whatever the message holds.
std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  return text;
}

/// The program, with the command that was named: whose --help has the options.
std::string help_of(const CLI::App& app) {
  std::string words = "see dsa-verify ";
  for (const CLI::App* command : app.get_subcommands()) words += command->get_name() + " ";
  return words + "--help";
}

int fail(const std::string& sentence) {
  clear_progress();
  std::cerr << "dsa-verify: " << one_line(sentence) << "\n";
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{about};
  app.require_subcommand(1);
  app.set_version_flag("--version", DSA_VERSION);
  const std::vector<Command> commands = {
      golden_command(app),     gradients_command(app), diagnose_command(app),
      defects_command(app),    localise_command(app),  power_command(app),
      invariants_command(app), ops_command(app),       samples_command(app)};
  const auto is_named = [&](const Command& c) { return c.app->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && std::none_of(commands.begin(), commands.end(), is_named))
    return fail("there is no command \"" + std::string(argv[1]) + "\"; see dsa-verify --help");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& e) {
    return fail(std::string(e.what()) + "; " + help_of(app));
  }
  std::string command_line = "dsa-verify";
  for (int i = 1; i < argc; ++i) command_line += " " + std::string(argv[i]);
  try {
    for (const Command& command : commands)
      if (command.app->parsed()) return command.run(command_line);
  } catch (const std::exception& e) {
    return fail(e.what());
  }
  return 2;
}
