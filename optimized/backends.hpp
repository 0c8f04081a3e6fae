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
#include "optimized/engine.hpp"
#include "optimized/plan.hpp"

namespace dsa {

/// As given on a command line; what is empty or 0 is chosen.
struct EngineOptions {
  std::string format = "bf16";    // fp32, bf16 or fp8
  std::string tier;               // of cpu
  std::string mla = "automatic";  // of cpu: automatic, absorbed or expanded
  Index chunk = 512;              // tokens of a pass, at most
  Index memory = 0;               // bytes that may be used; 0: what is available
  int threads = 0;                // of cpu
};

struct Backend {
  std::string name;
  /// What a run over S tokens takes of the memory where the backend computes, before anything is
  /// loaded; logits_rows rows of logits are held at a time.
  Plan (*plan)(const Config&, const EngineOptions&, Index S, Index logits_rows);
  /// Errors: no device here; no such format or tier; the model does not fit into memory.
  std::unique_ptr<Engine> (*open)(const Model&, const EngineOptions&);
};

/// Every backend of this build.
const std::vector<Backend>& backends();

/// Error: this build has none of that name; says which there are.
const Backend& backend_named(const std::string&);

}  // namespace dsa
