// verify/training/trajectory.hpp — what somebody's training printed, step by step.
//
// safetensors: `tokens` (N, B, S): each step's batch; for each step, before its update, (N) each,
// as many as there are: `loss.lm`, `loss.kl`, `loss.mtp`, `loss.balance`, `grad_norm` (over what is
// trained, before the clip), `lr`; `final.PARAMETER` after the last step, under HuggingFace names.
// Metadata, optional: "recipe", the JSON of core/recipe.hpp. data/README.md.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "core/recording.hpp"
#include "verify/gradients/parameters.hpp"

namespace dsa::verify {

/// The quantities of a step, in the order in which a step computes them.
inline constexpr const char* step_quantities[] = {"lr",       "loss.lm",      "loss.kl",
                                                  "loss.mtp", "loss.balance", "grad_norm"};

/// One step's quantities by name.
using StepRecord = std::map<std::string, double>;

struct Trajectory {
  std::filesystem::path path;
  std::vector<Sequence> batches;  // one a step: its sequences joined
  Index sequences = 0;            // of a batch
  std::vector<StepRecord> steps;
  ByParameter finals;
  std::string recipe;     // JSON; empty: the file does not say
  std::string precision;  // "fp64", "hf-fp32" or "hf-bf16": what its numbers look like

  bool records(const std::string& quantity) const { return steps.front().contains(quantity); }
  Index size() const { return static_cast<Index>(steps.size()); }
};

/// Checks names and shapes against the config. `names`: a parameter map (verify/names/
/// parameter_map.hpp); empty: none. Error: nothing but tokens, a quantity of another
/// number of steps, a parameter that the model does not have.
Trajectory read_trajectory(const std::filesystem::path&, const Config&,
                           const std::string& names = "");

}  // namespace dsa::verify
