// optimized/train/pipeline/names.hpp — parameters of a trained model by their names.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "optimized/train/model.hpp"
#include "optimized/train/pipeline/stage.hpp"
#include "optimized/train/pipeline/trained.hpp"

namespace dsa::train {

/// Every parameter with its gradient, in the order of the model's list.
std::vector<Trained> parameters_of(TrainedModel&);

/// Whether a loss of this stage reaches the parameter.
bool gets_gradient(const std::string& parameter, const Stage&, const Config&);

/// Those that the stage trains. Errors: none; a pattern of `trained` that matches nothing, or only
/// what no loss of the stage reaches.
std::vector<Trained> trained_by(const Stage&, TrainedModel&);

/// Layers that compute an index.
Index index_layers(const Config&);

/// What one micro-batch contributes to a step of these sums over all of its micro-batches.
struct StepSize {
  double weight = 0, mtp_weight = 0;  // of the targets one, and two tokens ahead
  Index rows = 0, documents = 0;
};
StepSize size_of(const std::vector<Batch>&);
Objective objective_of(const Recipe&, const Config&, const StepSize&);

}  // namespace dsa::train
