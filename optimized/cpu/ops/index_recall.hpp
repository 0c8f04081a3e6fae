// optimized/cpu/ops/index_recall.hpp — how much of dense attention the indexer's selection keeps.
//
//   u[t,s] = 1/N sum_n exp( scale q[t,n,:] . k[s,n,:] - lse[t,n] )   over every visible key
//   indexer: sum of u over the K keys of largest scores;   recent: over the last K keys;
//   oracle: over the K keys of largest u;   random: what K keys drawn at random keep in the mean,
//   K / visible;   teacher_entropy: - sum_s u log u;   dead: the share of (key, head) pairs with
//   c q.k <= 0
//
// Means over the rows with more than 4 K visible keys.
#pragma once

#include "optimized/cpu/ops/index_kl.hpp"

namespace dsa::cpu {

struct IndexRecall {
  Index rows = 0;
  double indexer = 0, random = 0, recent = 0, oracle = 0, teacher_entropy = 0, dead = 0;
};

/// The teacher's lse is over every visible key.
IndexRecall index_recall(Cpu, const IndexIn&, const Teacher&, Index K, TrainMemory&);

}  // namespace dsa::cpu
