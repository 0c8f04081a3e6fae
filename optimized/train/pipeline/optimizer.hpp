// optimized/train/pipeline/optimizer.hpp — AdamW in fp32 on every trained parameter.
//
//   norm = sqrt( sum g^2 )      over every trained parameter, in a fixed order: blocks of numbers
//   are
//                               summed in fp64, the blocks one after the other
//   g    = g x min(1, max_norm / (norm + eps))
//   m, v, p as reference/ops/adamw.hpp has them
//
// A parameter that is not trained has no moments. Moments of one that stays trained across stages
// go on, those of one that is no longer trained are dropped; each counts its own steps.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/recipe.hpp"
#include "optimized/train/model.hpp"

namespace dsa::train {

/// A parameter with its gradient.
struct Trained {
  std::string name;
  Leaf* value = nullptr;
  Leaf* gradient = nullptr;
  bool is_matrix = true;  // weight decay is of matrices, unless the recipe says of all
};

struct Moments {
  Leaf m, v;
  Index steps = 0;
};

class Optimizer {
 public:
  /// Moments of these, zero where they are new; all others are dropped.
  void keep(const std::vector<Trained>&);

  /// One step at this rate. Returns the norm of the gradient before the clip; where it is no finite
  /// number nothing was changed.
  double step(const std::vector<Trained>&, const AdamW&, const Clip&, double lr);

  std::map<std::string, Moments>& moments() { return moments_; }
  const std::map<std::string, Moments>& moments() const { return moments_; }

 private:
  std::map<std::string, Moments> moments_;
};

/// The norm over all of these.
double gradient_norm(const std::vector<Trained>&);

void set_to_zero(Leaf&);

/// V3's bias: b += rate x sign(mean load - load), per layer of experts. The load is the step's.
void update_router_biases(Parameters&, const Config&, const std::vector<std::vector<Index>>& load,
                          double rate);

}  // namespace dsa::train
