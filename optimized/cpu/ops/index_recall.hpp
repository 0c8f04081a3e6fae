// optimized/cpu/ops/index_recall.hpp — how much of dense attention the indexer's selection keeps.
//
//   u[t,s] = 1/N sum_n exp( scale q[t,n,:] . k[s,n,:] - lse[t,n] )   over every visible key
//   indexer: sum of u over the K keys of largest scores;   recent: over the last K keys;
//   oracle: over the K keys of largest u;   random: what K keys drawn at random keep in the mean,
//   K / visible;   teacher_entropy: - sum_s u log u;   dead: the share of (key, head) pairs with
//   c q.k <= 0;   indexer_keys_90: the least m / visible whose m keys of largest scores hold 90 %
//   of u;   oracle_keys_90: the same of the m keys of largest u
//
// Means over the rows with more than 4 K visible keys.
#pragma once

#include "optimized/cpu/ops/index_kl.hpp"
#include "optimized/shared/recall.hpp"

namespace dsa::cpu {

/// The teacher's lse is over every visible key.
Recall index_recall(Cpu, const IndexIn&, const Teacher&, Index K, TrainMemory&);

}  // namespace dsa::cpu
