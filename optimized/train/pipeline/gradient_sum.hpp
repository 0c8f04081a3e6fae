// optimized/train/pipeline/gradient_sum.hpp — the gradient of a step, from those of its
// micro-batches.
//
//   sum = ((g_0 + g_1) + g_2) + ...        in fp32, in the order of the step's micro-batches
//
// Micro-batch i, or part i where ranks hold micro-batches together, is computed by rank i modulo
// the number of ranks. After each round of them every rank gets the others' gradients of its share
// of every parameter, and adds them in order. So the sum is the same bits for any number of ranks,
// one included.
#pragma once

#include <vector>

#include "optimized/train/pipeline/shares.hpp"

namespace dsa::train {

/// Numbers of a share that one exchange brings, from each of so many ranks.
Index chunk_numbers(int sources);

class GradientSum {
 public:
  explicit GradientSum(ranks::Communicator& ranks) : ranks_(ranks) {}

  /// A step of so many micro-batches. `trained` must stay where it is until the step is over.
  void begin(const std::vector<Trained>& trained, Index parts);

  /// Takes the gradients of the next round. A rank that has a micro-batch in it has its gradient in
  /// `trained`, and may write there afterwards, but for the last round.
  void add_round();

  /// The sum of this rank's share of parameter i.
  const float* of(std::size_t i) const { return sums_[i]; }

 private:
  void add_chunk(std::size_t from, std::size_t bytes);

  ranks::Communicator& ranks_;
  const std::vector<Trained>* trained_ = nullptr;
  Index parts_ = 0, added_ = 0;
  std::vector<float> kept_;      // of a step of several rounds: the sum so far
  std::vector<float*> sums_;     // by parameter: into kept_, or into the last round's gradients
  ranks::In target_;             // the same as pieces
  std::vector<ranks::Out> out_;  // by rank: its share of this rank's gradients
  std::vector<std::vector<float>> received_;  // by rank: a chunk
};

}  // namespace dsa::train
