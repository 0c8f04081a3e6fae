// run/text_commands.hpp — dsa-run generate and dsa-run tokenize on the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "optimized/engine/arguments.hpp"
#include "run/generate.hpp"

namespace dsa::run {

class TextCommands {
 public:
  /// Adds both to the program. Must live as long as `program`.
  explicit TextCommands(CLI::App& program);

  /// Runs the one that was asked for, if any, and returns the exit status.
  std::optional<int> run();

 private:
  void describe_source(CLI::App&, const std::string& what);
  void describe_generate(CLI::App&);
  std::string source(const CLI::App&) const;
  int generate();
  int tokenize() const;

  CLI::App *generate_, *tokenize_;
  EngineArguments engine_;
  GenerateJob job_;
  std::string checkpoint_, text_, file_, chat_;
  bool decode_ = false;
};

}  // namespace dsa::run
