// verify/runs/backends.hpp — our own implementations before the judge: what its `--backend` may
// name.
//
// The reference, in fp64, and the backends of this build (optimized/backends.hpp), in fp32, bf16
// and fp8; what is named first is the default.
#pragma once

#include <filesystem>
#include <string>

#include "reference/precision/precision.hpp"
#include "verify/runs/implementation.hpp"

namespace dsa::verify {

std::string judged_backends();  // "reference or cpu"

/// As given on the command line. Empty: the backend's default.
struct BackendChoice {
  std::string name = "reference", format, tier, mla = {};
  bool is_default() const {
    return name == "reference" && format.empty() && tier.empty() && mla.empty();
  }
};

struct OpenedBackend {
  Implementation implementation;
  reference::Precision precision;  // whose limits it is held to
};

/// Loads the model. Errors: no such backend in this build, no such format of it, no such tier
/// or form; the model does not fit into memory.
OpenedBackend open_backend(const Model& stored, const BackendChoice&);
OpenedBackend open_backend(const std::filesystem::path& checkpoint, const BackendChoice&);

}  // namespace dsa::verify
