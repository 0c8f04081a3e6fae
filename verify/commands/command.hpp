// verify/commands/command.hpp — the commands of dsa-verify, one file each, and the options they
// share.
#pragma once

#include <string>

#include "cli/numbers.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"
#include "core/outputs.hpp"
#include "optimized/engine/arguments.hpp"
#include "verify/judge/judge.hpp"
#include "verify/runs/backends.hpp"

namespace dsa::verify {

using cli::Command;

Command golden_command(CLI::App&);
Command defects_command(CLI::App&);
Command diagnose_command(CLI::App&);
Command gradients_command(CLI::App&);
Command localise_command(CLI::App&);
Command merge_command(CLI::App&);
Command invariants_command(CLI::App&);
Command ops_command(CLI::App&);
Command power_command(CLI::App&);
Command samples_command(CLI::App&);
Command training_command(CLI::App&);

/// What most commands are told. Held by a shared_ptr: CLI11 keeps references.
struct Arguments {
  std::string checkpoint, golden, candidate, samples, precision, layers;
  std::string latent_eps = "transformers";
  std::string json, junit, html;
  JudgeOptions options;
  EngineArguments engine{"reference"};

  /// `options`, with the texts above read and a progress bar where stderr is a terminal.
  JudgeOptions judge_options() const;

  /// The backend that was asked for; the reference computes in fp64 unless --format says otherwise.
  EngineOptions engine_options() const;

  /// Error, before anything is judged, where a report could not be written or would replace what
  /// is read (core/outputs.hpp).
  void check_reports() const;
};

void add_checkpoint(CLI::App&, Arguments&);
/// The engine flags, --backend among them: what it says begins with `what`.
CLI::Option* add_backend(CLI::App&, Arguments&, const std::string& what);
void add_dtype(CLI::App&, Arguments&, const std::string& of);  // "GOLDEN"
void add_precision(CLI::App&, Arguments&);
/// --latent-eps: which of two conventions the definition follows.
void add_conventions(CLI::App&, Arguments&);
void add_names(CLI::App&, Arguments&);
/// --runs (at least `least`), --seed and --alpha.
void add_sampling(CLI::App&, Draws&, int least = 1);
void add_json(CLI::App&, Arguments&, const std::string& what);  // "the verdict"
void add_html(CLI::App&, Arguments&);

/// Whether stdout is a terminal.
bool is_coloured();

/// Ends the progress bar and prints `text`.
void print(const std::string& text);

void write_if_asked(const std::string& file, const std::string& text);

}  // namespace dsa::verify
