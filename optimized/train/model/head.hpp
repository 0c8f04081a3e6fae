// optimized/train/model/head.hpp — from the residual stream to a loss on tokens, and back.
//
//   z = lm_head( RMSNorm(x) ),  loss = sum_t weight[t] ( log sum_v exp z[t,v] - z[t,target[t]] )
//
// Only rows with a weight are computed, some at a time: logits are never all there at once.
#pragma once

#include <vector>

#include "optimized/train/model/pass.hpp"

namespace dsa::train {

/// Rows with a target that is to be learned.
struct Targets {
  std::vector<std::int32_t> rows, tokens;
  std::vector<float> weights;

  void clear();
  void add(Index row, Token token, float weight);
  double total_weight() const;
};

struct Head {
  const Slot& norm;
  const Linear& matrix;
};

/// The loss of x (T, C). With `factor`, the gradient of factor times the loss: of the head's
/// parameters where they are trained, and added to d_x unless that is without data.
double head_loss(const Pass&, const HeadBuffers&, const Head&, const Targets&,
                 View<const float, 2> x, double factor, View<float, 2> d_x);

/// Logits (T, V) of every row.
void head_logits(const Pass&, const HeadBuffers&, const Head&, View<float, 2> logits,
                 View<const float, 2> x);

}  // namespace dsa::train
