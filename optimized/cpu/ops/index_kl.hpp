// optimized/cpu/ops/index_kl.hpp — the indexer's loss and its gradient, fused.
//
//   forward: u[t,s] = sum_n exp( scale q[t,n,:] . k[s,n,:] - lse[t,n] ),   p = u / g1( sum_s u ),
//            q = softmax_s( c scores ),   loss[t] = sum_s p ( log gp(p) - log gq(q) )
//   so:      d_scores = weight c ( r - q sum_s r ),   r = -p q gq'(q) / gq(q);
//            from there as in index_scores.hpp
//
// The Q queries are those of the last Q of T rows (heads_attention.hpp).
//
// Definition: reference/ops/index_kl.hpp; core/kl_semantics.hpp says which keys either side has,
// the guards g1, gp, gq and c. The caller makes weights of the reductions. The teacher is a
// constant. Rows of scores are held for a block of queries only: memory is O(T).
#pragma once

#include "core/kl_semantics.hpp"
#include "optimized/cpu/ops/index_scores.hpp"

namespace dsa::cpu {

/// Main attention, as the indexer learns from it.
struct Teacher {
  View<const float, 3> q;    // (Q, N, B+P)
  View<const float, 3> k;    // (T, N, B+P)
  View<const float, 2> lse;  // (Q, N)       over the keys of semantics.teacher_softmax
  double scale = 1;
};
struct KlIn {
  IndexIn index;
  Teacher teacher;
  View<const std::int32_t, 2> chosen;  // (Q, K)  visible keys, ascending, then -1; not read where
                                       //         no side has the chosen keys (in_warmup)
  View<const float, 1> weight;         // (Q)     of each row's loss
  KlSemantics semantics;
};
struct KlOut {
  View<double, 1> loss;    // (Q)  written: not multiplied by the weight; 0 where that is 0
  IndexGradient gradient;  // of sum_t weight[t] loss[t]; no data in d_q: the loss alone
};

/// Error: shapes disagree; semantics with an infinite loss (check(KlSemantics)).
void index_kl(Cpu, KlOut, const KlIn&, TrainMemory&);

}  // namespace dsa::cpu
