// optimized/train/pipeline/start.hpp — the model that a run begins with.
#pragma once

#include <cstdint>

#include "core/json.hpp"
#include "core/weights.hpp"
#include "optimized/train/model.hpp"
#include "optimized/train/pipeline/settings.hpp"

namespace dsa::train {

struct Start {
  Json config;  // config.json of the checkpoints that the run writes
  Model model;
};

/// model.init, with a fresh indexer where model.init_indexer says so; or a fresh model.
///
/// Fresh parameters are functions of (run.seed, name): matrices are normal with standard deviation
/// init_std (0: 1 / sqrt(columns)), norms are 1, biases 0. A dense checkpoint with a fresh indexer
/// has the dense logits it had.
Start start_of(const Settings&);

/// What the settings say of every pass: model.compute; run.threads, 0: all.
Compute compute_of(const Settings&);
int threads_of(const Settings&);

/// config.json of a fresh model.
Json fresh_config(const Settings&);

/// config.json of a checkpoint as a run writes it: fp32, without the FP8 release's scales.
Json as_trained(Json config, const Config&);

/// One fresh parameter, `columns` numbers a row (1: a vector).
void draw_parameter(const std::string& name, Index columns, double init_std, std::uint64_t seed,
                    float* out, Index size);

}  // namespace dsa::train
