// optimized/backends.hpp — where a model can run: what `--backend` may name, in one table.
//
//   cpu        optimized/cpu/
//   cuda       optimized/cuda/ on a device
//   cuda-host  the same kernels, executed on the processor by optimized/cuda/host/: slow, for
//              machines without a device
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/weights.hpp"
#include "optimized/engine/engine.hpp"
#include "optimized/engine/plan.hpp"

namespace dsa {

struct Backend {
  std::string name;
  /// What a run over S tokens takes of the memory where the backend computes, before anything is
  /// loaded; logits_rows rows of logits are held at a time.
  Plan (*plan)(const Config&, const EngineOptions&, Index S, Index logits_rows);
  /// Errors: no device here; no such format or tier; the model does not fit into memory.
  std::unique_ptr<Engine> (*open)(const Model&, const EngineOptions&);
};

/// Every backend of this build; none in a build of the judge alone (DSA_BACKENDS=OFF).
const std::vector<Backend>& backends();

std::vector<std::string> backend_names();

/// Error: this build has none of that name; says which there are.
const Backend& backend_named(const std::string&);

/// Error: a tier, a form of MLA or a number of threads was given for a backend that is not cpu.
void check_options(const EngineOptions&);

}  // namespace dsa
