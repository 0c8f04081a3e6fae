// verify/backends.hpp — our own implementations, in one table: what `--backend` may name.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "reference/precision.hpp"
#include "verify/implementation.hpp"

namespace dsa::verify {

/// What a backend computes in, and the precision whose limits it is held to. Those of cpu round
/// less than HuggingFace and the official code do (docs/limits.md).
struct BackendFormat {
  std::string name;
  reference::Precision precision;
};

struct Backend {
  std::string name;
  std::vector<BackendFormat> formats;  // the first is the default
  std::function<Implementation(const std::filesystem::path& checkpoint, const std::string& format,
                               const std::string& tier, const std::string& mla)>
      open;
};

/// Those that this build has and this machine can run.
const std::vector<Backend>& backends();
std::string backend_names();  // "reference or cpu"

/// As given on the command line. Empty: the backend's default.
struct BackendChoice {
  std::string name = "reference", format, tier, mla = {};
  bool is_default() const {
    return name == "reference" && format.empty() && tier.empty() && mla.empty();
  }
};

struct OpenedBackend {
  Implementation implementation;
  reference::Precision precision;
};

/// Loads the checkpoint. Errors: no such backend here, no such format of it, no such tier; the
/// model does not fit into memory.
OpenedBackend open_backend(const std::filesystem::path& checkpoint, const BackendChoice&);

}  // namespace dsa::verify
