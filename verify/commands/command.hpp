// verify/commands/command.hpp — the commands of dsa-verify, one file each, and the options they
// share.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>

#include "verify/judge/judge.hpp"
#include "verify/runs/backends.hpp"

namespace dsa::verify {

/// A command on the command line. `run` returns the exit status and is called only if the user
/// gave the command; bad input is an Error.
struct Command {
  CLI::App* app = nullptr;
  std::function<int(const std::string& command_line)> run;
};

Command golden_command(CLI::App&);
Command defects_command(CLI::App&);
Command diagnose_command(CLI::App&);
Command gradients_command(CLI::App&);
Command localise_command(CLI::App&);
Command invariants_command(CLI::App&);
Command ops_command(CLI::App&);
Command power_command(CLI::App&);
Command samples_command(CLI::App&);

/// What most commands are told. Held by a shared_ptr: CLI11 keeps references.
struct Arguments {
  std::string checkpoint, golden, candidate, samples, precision, layers;
  std::string json, junit, html;
  JudgeOptions options;
  BackendChoice backend;

  /// `options`, with the texts above read and a progress bar where stderr is a terminal.
  JudgeOptions judge_options() const;

  /// Error, before anything is judged, where a report could not be written or would replace what
  /// is read (core/outputs.hpp).
  void check_reports() const;
};

void add_checkpoint(CLI::App&, Arguments&);
CLI::Option* add_backend(CLI::App&, Arguments&,
                         const std::string& what);             // --backend, --format, --cpu, --mla
void add_dtype(CLI::App&, Arguments&, const std::string& of);  // "GOLDEN"
void add_precision(CLI::App&, Arguments&);
void add_names(CLI::App&, Arguments&);
void add_sampling(CLI::App&, Arguments&);
void add_json(CLI::App&, Arguments&, const std::string& what);  // "the verdict"
void add_html(CLI::App&, Arguments&);

/// Ends the progress bar and prints `text`, coloured where stdout is a terminal.
bool is_coloured();
void print(const std::string& text);
void clear_progress();

void write_if_asked(const std::string& file, const std::string& text);

}  // namespace dsa::verify
