// optimized/cuda/model/engine.hpp — CUDA's rows of the table of backends (optimized/backends.hpp).
//
// The functions exist twice, as the kernels do (place.cuh): on a device, and executed on the
// processor.
#pragma once

#include <memory>

#include "core/weights.hpp"
#include "optimized/engine/engine.hpp"
#include "optimized/engine/plan.hpp"

namespace dsa::cuda {

namespace device {

/// Device memory of a run over S tokens. Errors: no such format; no device that the
/// kernels can run on (device.hpp); this build was made without nvcc.
Plan plan(const Config&, const EngineOptions&, Index S, Index logits_rows);

/// Loads the model onto the device, wholly. Errors: those of plan(); it does not fit.
std::unique_ptr<Engine> open(const Model&, const EngineOptions&);

}  // namespace device

namespace host {

/// The same, of this machine's memory; where there is always a device.
Plan plan(const Config&, const EngineOptions&, Index S, Index logits_rows);
std::unique_ptr<Engine> open(const Model&, const EngineOptions&);

}  // namespace host

}  // namespace dsa::cuda
