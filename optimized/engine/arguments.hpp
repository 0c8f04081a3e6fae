// optimized/engine/arguments.hpp — the options of every command that runs a model.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "optimized/backends.hpp"

namespace dsa::run {

/// A backend, and what it is asked to be.
struct ChosenEngine {
  const Backend& backend;
  EngineOptions options;
};

/// As CLI11 writes them.
struct EngineArguments {
  std::string backend = "cpu", memory;
  EngineOptions options;  // but `memory`

  void describe(CLI::App&);

  /// Errors: this build has no such backend; a tier of another than cpu; a size that is none.
  ChosenEngine parsed() const;
};

}  // namespace dsa::run
