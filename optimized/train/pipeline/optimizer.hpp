// optimized/train/pipeline/optimizer.hpp — AdamW in fp32 on every trained parameter, each rank on
// its share (ZeRO stage 1, arXiv 1910.02054).
//
//   norm = sqrt( sum g^2 )    over every trained parameter, in a fixed order: blocks of numbers are
//                             summed in fp64, the blocks one after the other
//   g    = g x min(1, max_norm / (norm + eps))
//   m, v, p as reference/ops/adamw.hpp has them
//
// A rank has the moments of its share (shares.hpp), changes that share of the parameters, and gets
// the others' from the ranks that have them. No result depends on the number of ranks.
//
// A parameter that is not trained has no moments. Moments of one that stays trained across stages
// go on, those of one that is no longer trained are dropped; each counts its own steps.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/recipe.hpp"
#include "optimized/train/pipeline/gradient_sum.hpp"

namespace dsa::train {

struct Moments {
  Shape<2> shape{};         // of the parameter
  Share share;              // of this rank
  std::vector<float> m, v;  // of the share
  Index steps = 0;
};

class Optimizer {
 public:
  explicit Optimizer(ranks::Communicator& ranks) : ranks_(ranks) {}

  /// Moments of these, zero where they are new; all others are dropped.
  void keep(const std::vector<Trained>&);

  /// One step at this rate. Returns the norm of the gradient before the clip; where it is no finite
  /// number nothing was changed.
  double step(const std::vector<Trained>&, const GradientSum&, const AdamW&, const Clip&,
              double lr);

  std::map<std::string, Moments>& moments() { return moments_; }
  const std::map<std::string, Moments>& moments() const { return moments_; }

  /// A moment of a whole parameter, at rank 0; empty at the others. All ranks call it.
  std::vector<float> whole(const std::string& name, std::vector<float> Moments::*which) const;

 private:
  double norm_of(const std::vector<Trained>&, const GradientSum&) const;
  void share_values(const std::vector<Trained>&) const;

  ranks::Communicator& ranks_;
  std::map<std::string, Moments> moments_;
};

void set_to_zero(Leaf&);

/// V3's bias: b += rate x sign(mean load - load), per layer of experts. The load is the step's.
void update_router_biases(Parameters&, const Config&, const std::vector<std::vector<Index>>& load,
                          double rate);

}  // namespace dsa::train
