#include "cli/program.hpp"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <new>

#include "cli/interrupts.hpp"
#include "cli/progress.hpp"
#include "core/build_info.hpp"
#include "core/json.hpp"

namespace dsa::cli {
namespace {

constexpr int bad_input = 2;

/// One line that no terminal obeys, whatever the message holds.
std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r' || c == '\t') c = ' ';
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return text;
}

int fail(const std::string& program, const std::string& sentence) {
  end_progress();
  std::cout.flush();
  std::cerr << program << ": " << one_line(sentence) << '\n';
  return bad_input;
}

/// The program, with the command that was named: whose --help has the options.
std::string help_of(const std::string& program, const CLI::App& app) {
  std::string words = "see " + program + " ";
  for (const CLI::App* command : app.get_subcommands()) words += command->get_name() + " ";
  return words + "--help";
}

std::string version_of(const std::string& program) {
  return program + " " + build_info().version + ", commit " + build_info().commit;
}

int run_command(const Program& program, const Command& command, const std::string& command_line) {
  const Interrupts interrupts(program.name);
  try {
    const int status = command.run(command_line);
    end_progress();
    if (std::cout.flush() && std::fflush(stdout) == 0) return status;
    return fail(program.name, "cannot write to stdout; what was to be printed is incomplete");
  } catch (const std::bad_alloc&) {
    return fail(program.name, "there is not enough memory for this");
  } catch (const std::exception& error) {
    return fail(program.name, error.what());
  }
}

}  // namespace

std::string command_line_of(const std::string& program, int argc, const char* const* argv) {
  std::string line = program;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) ||
             std::string("-_./:=,+@%").find(c) != std::string::npos;
    });
    line += ' ';
    if (plain) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) line += c == '\'' ? "'\\''" : std::string(1, c);
    line += '\'';
  }
  return line;
}

namespace {

/// The words, with the implied command where the first names none and asks for no help.
std::vector<const char*> words_of(const Program& program, const std::vector<Command>& commands,
                                  int argc, char** argv) {
  std::vector<const char*> words(argv, argv + argc);
  if (program.implied.empty() || argc < 2) return words;
  const std::string first = argv[1];
  const bool is_own = first == "--help" || first == "-h" || first == "--version" ||
                      std::any_of(commands.begin(), commands.end(),
                                  [&](const Command& c) { return c.app->get_name() == first; });
  if (!is_own) words.insert(words.begin() + 1, program.implied.c_str());
  return words;
}

}  // namespace

int run(const Program& program, int argc, char** argv) {
  CLI::App app(program.about, program.name);
  app.require_subcommand(1);
  app.set_version_flag("--version", version_of(program.name));
  std::vector<Command> commands;
  for (const auto& describe : program.commands) commands.push_back(describe(app));
  const std::vector<const char*> words = words_of(program, commands, argc, argv);
  const auto is_named = [&](const Command& c) { return c.app->get_name() == words[1]; };
  if (words.size() > 1 && words[1][0] != '-' &&
      std::none_of(commands.begin(), commands.end(), is_named))
    return fail(program.name,
                "there is no command " + in_quotes(words[1]) + "; see " + program.name + " --help");
  try {
    app.parse(static_cast<int>(words.size()), words.data());
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    return fail(program.name, std::string(error.what()) + "; " + help_of(program.name, app));
  }
  for (const Command& command : commands)
    if (command.app->parsed())
      return run_command(program, command, command_line_of(program.name, argc, argv));
  return bad_input;
}

}  // namespace dsa::cli
