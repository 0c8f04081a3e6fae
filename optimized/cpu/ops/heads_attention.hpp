// optimized/cpu/ops/heads_attention.hpp — attention in expanded form, forward and backward, fp32.
//
//   forward: z_s = scale q[t,n,:] . k[s,n,:],   p = softmax_s z,   out[t,n,:] = sum_s p_s v[s,n,:],
//            lse[t,n] = log sum_s exp z_s
//   so:      d_v_s = sum_t p_s d_out,   d_p_s = d_out.v_s,   d_z_s = p_s ( d_p_s - d_out.out ),
//            d_q = scale sum_s d_z_s k_s,   d_k_s = scale sum_t d_z_s q
//
// Definition: reference/ops/mla.hpp (mla_expanded). s runs over every visible key, begin[t] <= s <=
// t, or over the chosen ones. Memory is O(T) numbers a channel: no matrix of scores is kept. Every
// sum has an order of its own: the same bits for any number of threads.
//
// The Q queries are those of the last Q of T rows. So a run of rows can be computed with the keys
// that it sees, and without the queries before it: d_k and d_v are then what the run gives. `begin`
// may go on behind the keys: the way in which a document is taken depends on all of it.
//
// Every visible key: a thread takes a head of a document, by blocks of products. Chosen keys: so,
// too, with a mask, in documents of which two keys in five are chosen; otherwise a thread takes a
// query and gathers the rows of all heads. Which of the two is decided by how many keys were
// chosen.
#pragma once

#include "optimized/cpu/ops/tier.hpp"
#include "optimized/cpu/ops/train_memory.hpp"

namespace dsa::cpu {

struct HeadsIn {
  View<const float, 3> q;             // (Q, N, B+P)
  View<const float, 3> k;             // (T, N, B+P)
  View<const float, 3> v;             // (T, N, U)
  View<const std::int32_t, 1> begin;  // (T or more)  first row of each row's document
  double scale = 1;

  /// The row of the first query.
  Index first() const { return k.shape[0] - q.shape[0]; }
};
struct HeadsOut {
  View<float, 3> out;  // (Q, N, U)    written
  View<float, 2> lse;  // (Q, N)       written
};
/// What the forward pass made, and the gradient of `out`.
struct HeadsResult {
  View<const float, 3> d_out;  // (Q, N, U)
  View<const float, 3> out;    // (Q, N, U)
  View<const float, 2> lse;    // (Q, N)
};
struct HeadsGradient {
  View<float, 3> d_q;  // (Q, N, B+P)  written
  View<float, 3> d_k;  // (T, N, B+P)  written
  View<float, 3> d_v;  // (T, N, U)    written
};

/// Over every visible key. U = 0 is allowed: lse alone. Error: shapes disagree; begin is not that
/// of packed documents.
void heads_attention(Cpu, HeadsOut, const HeadsIn&, TrainMemory&);
void heads_attention_backward(Cpu, HeadsGradient, const HeadsIn&, const HeadsResult&, TrainMemory&);

/// Over chosen (Q, K): visible keys in ascending order, then -1. A row that chose nothing: out 0,
/// lse -inf, no gradient. Error, too: a row that is none.
void heads_attention(Cpu, HeadsOut, const HeadsIn&, View<const std::int32_t, 2> chosen,
                     TrainMemory&);
void heads_attention_backward(Cpu, HeadsGradient, const HeadsIn&, const HeadsResult&,
                              View<const std::int32_t, 2> chosen, TrainMemory&);

}  // namespace dsa::cpu
