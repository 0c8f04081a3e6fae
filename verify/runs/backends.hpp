// verify/runs/backends.hpp — our own implementations before the judge: what its `--backend` may
// name.
//
// The reference, in fp64, and the backends of this build (optimized/backends.hpp), in fp32, bf16
// and fp8.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "optimized/engine/engine.hpp"
#include "reference/precision/precision.hpp"
#include "verify/runs/implementation.hpp"

namespace dsa::verify {

/// The reference, and those of this build.
std::vector<std::string> judged_backends();

/// The precision whose limits a backend is held to in its format. Errors: no such backend in this
/// build; no such format of it; options that it does not have.
reference::Precision precision_of(const EngineOptions&);

/// Loads the model. Errors: those of precision_of; no such tier or form; the model does not fit
/// into memory.
Implementation open_backend(const Model& stored, const EngineOptions&);
Implementation open_backend(const std::filesystem::path& checkpoint, const EngineOptions&);

}  // namespace dsa::verify
