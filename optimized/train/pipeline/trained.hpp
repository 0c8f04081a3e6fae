// optimized/train/pipeline/trained.hpp — a parameter that is trained, and its gradient.
#pragma once

#include <string>

#include "optimized/train/model.hpp"

namespace dsa::train {

struct Trained {
  std::string name;
  Leaf* value = nullptr;
  Leaf* gradient = nullptr;
  bool is_matrix = true;  // weight decay is of matrices, unless the recipe says of all
};

}  // namespace dsa::train
