// optimized/cpu/model/engine.hpp — the CPU's row of the table of backends (optimized/backends.hpp).
#pragma once

#include <memory>

#include "core/weights.hpp"
#include "optimized/engine/engine.hpp"
#include "optimized/engine/plan.hpp"

namespace dsa::cpu {

/// Memory of a run over S tokens; `logits_rows` rows of logits are held at a time. Error: no such
/// format or tier.
Plan plan(const Config&, const EngineOptions&, Index S, Index logits_rows);

/// Loads the model, wholly. Errors: no such format or tier; it does not fit into memory.
std::unique_ptr<Engine> open(const Model&, const EngineOptions&);

}  // namespace dsa::cpu
