// optimized/engine/arguments.hpp — the flags of every command that runs a model.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "optimized/backends.hpp"

namespace dsa {

/// --backend, --format, --cpu, --mla, --chunk, --threads and --memory. Must live as long as the
/// app that it described itself to.
struct EngineArguments {
  EngineOptions options;  // as CLI11 writes them; `memory` is still a text
  std::string memory;

  /// The default of --backend.
  explicit EngineArguments(const std::string& backend = "cpu") { options.backend = backend; }

  /// `names`: what --backend may be.
  void describe(CLI::App&, const std::vector<std::string>& names = backend_names());

  /// Whether the user gave this flag.
  bool has(const std::string& flag) const { return app_->count(flag) > 0; }

  /// Errors: options that the backend does not have; a size that is none.
  EngineOptions parsed() const;

 private:
  const CLI::App* app_ = nullptr;
};

}  // namespace dsa
