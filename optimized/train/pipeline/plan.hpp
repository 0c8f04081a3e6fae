// optimized/train/pipeline/plan.hpp — what a run will take, before it begins.
//
// Floating-point operations are those of products, two an addend; of attention only the chosen keys
// are counted, of the indexer all visible ones. A backward pass costs twice the forward pass of
// what is trained, and once more for running its layer again.
#pragma once

#include <string>
#include <vector>

#include "core/config.hpp"
#include "optimized/train/model.hpp"
#include "optimized/train/pipeline/stage.hpp"

namespace dsa::train {

/// A model of which only the sizes are known.
struct PlannedModel {
  Config config;
  Index mtp_blocks = 0;
  Compute compute = Compute::fp32;
};

/// That of the settings. A fresh one takes no memory.
PlannedModel planned_model(const Settings&);

/// What a stage trains, and how many numbers that has.
struct TrainedSize {
  std::string name;
  Index size = 0;
};
std::vector<TrainedSize> trained_sizes(const PlannedModel&, const Stage&);

struct Size {
  Index parameters = 0, trained = 0;
  Index active = 0;  // factors of a token's products: one of each expert that it passes
};

Size size_of(const PlannedModel&, const Stage&);

/// Of one token, forward and backward.
double flops_a_token(const Config&, const Size&, const Stage&);

/// Bytes: parameters, and their copies laid out for products, forward and back; gradients and
/// moments; one layer's activations with what is kept of all, and of these the keys and values.
struct Bytes {
  double parameters = 0, layouts = 0, gradients = 0, moments = 0, activations = 0, keys = 0;
};
Bytes bytes_of(const PlannedModel&, const Size&, const Stage&);

/// The plan of --dry-run, a paragraph a stage.
std::string plan_text(const PlannedModel&, const std::vector<Stage>&);

}  // namespace dsa::train
