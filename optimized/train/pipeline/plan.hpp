// optimized/train/pipeline/plan.hpp — what a run will take, before it begins.
//
// Floating-point operations are those of products, two an addend; of attention only the chosen keys
// are counted, of the indexer all visible ones. A backward pass costs twice the forward pass of
// what is trained, and once more for running its layer again.
#pragma once

#include <string>
#include <vector>

#include "core/config.hpp"
#include "optimized/train/pipeline/stage.hpp"

namespace dsa::train {

struct Size {
  Index parameters = 0, trained = 0;
  Index active = 0;  // factors of a token's products: one of each expert that it passes
};

Size size_of(const Config&, Index mtp_blocks, const Stage&);

/// Of one token, forward and backward.
double flops_a_token(const Config&, const Size&, const Stage&);

/// Bytes: parameters, gradients and moments, and one layer's activations with what is kept of all.
struct Bytes {
  double parameters = 0, gradients = 0, moments = 0, activations = 0;
};
Bytes bytes_of(const Config&, const Size&, const Stage&);

/// The plan of --dry-run, a paragraph a stage.
std::string plan_text(const Config&, Index mtp_blocks, const std::vector<Stage>&);

}  // namespace dsa::train
