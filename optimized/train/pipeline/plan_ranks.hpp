// optimized/train/pipeline/plan_ranks.hpp — what a step takes of each of n ranks, before there are
// any. docs/distributed.md has the formulas in words.
//
//   G    numbers that a stage trains      G_r  those of rank r's share (shares.hpp)
//   A_r  micro-batches of rank r          A = sum of A_r     R = ceil(A / n) rounds
//
//   rank r sends   A_r x 4 (G - G_r)      its gradients of the others' shares
//                + (n - 1) x 4 G_r        the new values of its own
//                + (n - 1) x 8 B_r        sums of squares, one of each of its B_r blocks
//   in about       R C + 2 + 6            messages to every other rank, C chunks of gradients
//
// Where c ranks hold a micro-batch of T rows together, A counts its parts: c times as many, of T /
// c rows. A rank then sends, for each of its parts,
//
//   4 T (c - 1) / c x ( 3 L (R + P) + 2 or 3 I D )
//
// Of L layers the keys go forward, again when the layer is run again, and back; of I layers with an
// index its key does, on the first of these ways and the last, and on the second where the
// indexer's loss reaches its inputs. A warm-up, which trains the indexer alone, has the first way
// of the keys, and the first and last of the index. This is of a stage that trains the lowest
// layer.
#pragma once

#include <string>
#include <vector>

#include "optimized/train/pipeline/plan.hpp"

namespace dsa::train {

/// What a rank computes, and sends, in a second. The defaults are 16 cores and 100 Gbit/s.
struct Network {
  double gflops = 500, gbytes = 10, microseconds = 20;
};

/// Of one step of a stage.
struct RankPlan {
  int ranks = 1;
  Index rounds = 0;              // micro-batches, or parts, of the rank with the most
  double state = 0;              // bytes of the fullest rank, but for parameters and activations
  std::vector<double> sent;      // bytes by rank
  double messages = 0;           // to all others, of one rank
  double compute = 0, wire = 0;  // seconds
  double seconds() const { return compute + wire; }
};

/// Bytes that each rank sends for gradients, sums of squares and new values.
std::vector<double> sent_bytes(const std::vector<TrainedSize>&, Index parts, int ranks);

/// Bytes that a rank sends to those that hold a micro-batch together with it: a mean.
double context_bytes(const PlannedModel&, const Stage&, int context);

/// `context`: ranks that hold a micro-batch together. Error: they do not divide `ranks`.
RankPlan rank_plan(const PlannedModel&, const Stage&, int ranks, const Network&, int context = 1);

/// A table a stage, a line for each number of ranks.
std::string ranks_text(const PlannedModel&, const std::vector<Stage>&,
                       const std::vector<int>& ranks, const Network&, int context = 1);

}  // namespace dsa::train
