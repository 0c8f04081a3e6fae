// optimized/train/model/buffers.hpp — all memory of a training pass, but what ops ask for.
//
// Activations is the one list of the arrays that a block makes on its way forward and back; there
// is one set of them, for a block is run again when its turn to go back comes. Kept is what stays
// of every block. Built over no memory, both give their size. Of T rows a rank has Q, which are all
// but where ranks hold a micro-batch together (context.hpp).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/config.hpp"
#include "optimized/shared/pieces.hpp"

namespace dsa::train {

/// Of a micro-batch: all, and those that this rank has; runs of these.
struct Rows {
  Index all = 0, own = 0, runs = 1;
};

/// What the forward pass keeps of a layer: its input, what attention made of it, and its decisions.
struct Kept {
  View<float, 2> x, mid;          // (Q, C)  mid: x + attention
  View<float, 3> heads;           // (Q, N, U)
  View<float, 2> lse;             // (Q, N)
  View<std::int32_t, 2> chosen;   // (Q, K)  of a layer that computes an index
  View<std::int32_t, 2> experts;  // (Q, num_experts_per_tok)
  View<float, 2> mixing;          // (Q, num_experts_per_tok)  the experts' weights

  Kept(Pieces&, const Config&, Rows, bool computes_index, bool is_moe);
};

struct Activations {
  // Attention. Those named d_ are gradients.
  View<float, 2> h, d_h;                  // (Q, C)  input_layernorm
  View<float, 2> q_a, c_q, d_c_q, d_q_a;  // (Q, A)
  View<float, 2> kv_a, d_kv_a;            // (Q, R+P)
  View<float, 2> latent, c_kv, d_c_kv;    // (Q, R)  before and after kv_a_layernorm
  View<float, 2> d_latent;                // (Q, R)
  View<float, 2> k_rope, d_k_rope;        // (Q, P)
  View<float, 3> q, d_q;                  // (Q, N, B+P)
  View<float, 3> d_heads;                 // (Q, N, U)
  View<float, 2> teacher_lse;             // (Q, N)

  // Its keys, of all rows. With all rows on one rank the first four are c_kv ... d_k_rope above.
  View<float, 2> all_c_kv, d_all_c_kv;      // (T, R)
  View<float, 2> all_k_rope, d_all_k_rope;  // (T, P)
  View<float, 2> kv, d_kv;                  // (T, N*(B+U))
  View<float, 3> k, d_k, d_k_of_run;        // (T, N, B+P)  d_k_of_run, d_v_of_run: of a second run
  View<float, 3> v, d_v, d_v_of_run;        // (T, N, U)

  // The indexer.
  View<float, 3> q_index, d_q_index;            // (Q, H, D)
  View<float, 2> k_raw, k_index, d_k_index;     // (Q, D)   before and after k_norm and rotation
  View<float, 2> d_k_raw;                       // (Q, D)
  View<float, 2> all_k_index, d_all_k_index;    // (T, D)   of all rows, or k_index and d_k_index
  View<float, 2> d_k_index_of_run;              // (T, D)
  View<float, 2> head_weights, d_head_weights;  // (Q, H)
  View<double, 1> row_loss;                     // (Q)

  // Feed-forward networks; M = Q num_experts_per_tok rows, sorted by expert.
  View<float, 2> g, d_g;                                // (Q, C)  post_attention_layernorm
  View<float, 2> logits, s, d_s;                        // (Q, E)
  View<float, 2> d_mixing;                              // (Q, num_experts_per_tok)
  View<std::int32_t, 1> pair;                           // (M)
  View<std::int32_t, 2> row;                            // (Q, num_experts_per_tok)
  View<float, 2> sorted, answers, d_sorted;             // (M, C)
  View<float, 1> gate_up, hidden, d_hidden, d_gate_up;  // of the largest network: rows * width

  Activations(Pieces&, const Config&, Rows);

 private:
  void place_keys(Pieces&, const Config&, Rows);
  void place_indexer(Pieces&, const Config&, Rows);
};

/// A head's blocks of rows: logits are never all there at once.
struct HeadBuffers {
  Index rows = 0;                 // of a block
  View<float, 2> x, h, d_h, d_x;  // (rows, C)
  View<float, 2> logits;          // (rows, V)
  View<std::int32_t, 1> targets;  // (rows)
  View<float, 1> factor;          // (rows)
  View<double, 1> loss;           // (rows)

  HeadBuffers(Pieces&, const Config&);
};

/// What the prediction block reads and makes, T rows of which it uses T-1.
struct MtpBuffers {
  View<float, 2> e, d_e;        // (T, C)   embedding of the next token
  View<float, 2> both, d_both;  // (T, 2C)  the two, normalised
  View<float, 2> part;          // (T, C)   half of it
  View<float, 2> y, z, d_z;     // (T, C)   the block's input and output; gradient of either

  MtpBuffers(Pieces&, const Config&, Index T);
};

struct Buffers {
  View<std::int32_t, 1> tokens;  // (Q)
  View<std::int32_t, 1> begin;   // (T)
  View<float, 2> cos, sin;       // (Q, P/2)
  View<float, 1> kl_weight;      // (Q)
  View<float, 2> x, d_x;         // (Q, C)  the last layer's output; gradient of the stream
  std::vector<Kept> kept;        // of every layer, and of the prediction block
  HeadBuffers head;
  MtpBuffers mtp;
  Pieces activations_at;  // where the activations lie: the prediction block has fewer rows
  Activations activations;

  Buffers(Pieces&, const Config&, Rows, bool has_mtp);
};

}  // namespace dsa::train
