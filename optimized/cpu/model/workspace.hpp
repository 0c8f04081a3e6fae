// optimized/cpu/model/workspace.hpp — all memory of a pass, in one piece.
//
// Buffers<X, Row> is the one list of the arrays that a pass of T tokens keeps beside weights and
// caches. Built over no memory it gives the size (workspace_bytes); built over the workspace it is
// the views. Attention and feed-forward networks take turns: what one needs begins where the
// other's begins. The size does not depend on how many tokens came before.
#pragma once

#include <memory>

#include "core/config.hpp"
#include "optimized/cpu/ops/products.hpp"
#include "optimized/shared/format.hpp"

namespace dsa::cpu {

/// X: what matrices are multiplied with, float or bf16. Row: of the caches, float, bf16 or e4m3.
/// Views of X that only repeat a float view in bf16 are empty where X is float.
template <class X, class Row>
struct Buffers {
  // Throughout.
  View<float, 2> x, h_wide;          // (T, C): residual stream; a norm's output
  View<X, 2> h;                      // (T, C): the same as X
  View<float, 2> y;                  // (T, C): what a block adds to x
  View<std::int32_t, 1> tokens;      // (T)
  View<Index, 1> positions;          // (T)
  View<std::int32_t, 1> begin, end;  // (T): visible rows of the cache
  View<float, 2> cos, sin;           // (T, P/2)
  View<std::int32_t, 2> chosen;      // (T, K): of the last layer that selected
  Scratch scratch;

  // Attention.
  View<Product, 1> products;             // (N): one a head
  View<float, 2> q_a;                    // (T, A)
  View<X, 2> c_q;                        // (T, A)
  View<float, 2> q;                      // (T, N*(B+P))
  View<X, 2> q_x;                        // the same as X
  View<X, 3> q_absorbed;                 // (T, N, R+P)
  View<float, 2> kv_a, c_kv, latent;     // (T, R), (T, R+P)
  View<Row, 2> latent_rows;              // (T, latent_width)
  View<float, 3> out;                    // (T, N, R)
  View<float, 2> lse;                    // (T, N)
  View<X, 2> out_x, heads;               // (T, N*R), (T, N*U)
  View<float, 3> values;                 // (T, N, U): heads, before they are rounded to X
  View<float, 2> k_raw, k_index;         // (T, D)
  View<Row, 2> index_rows;               // (T, index_width)
  View<float, 3> q_index;                // (T, H, D)
  View<Row, 3> q_rows;                   // (T, H, D)
  View<float, 2> head_weights, q_scale;  // (T, H)

  // Feed-forward networks.
  View<float, 2> router_logits, expert_weights;  // (T, E), (T, num_experts_per_tok)
  View<std::int32_t, 2> experts;                 // (T, num_experts_per_tok)

  Index bytes = 0;  // of all of it

  Buffers(std::byte* memory, const Config&, Index T, int threads);
};

/// Bytes of a pass of T tokens.
Index workspace_bytes(const Config&, Format, Index T, int threads);

class Workspace {
 public:
  /// For passes of up to T tokens on up to so many threads.
  Workspace(const Config&, Format, Index T, int threads);

  Index tokens() const { return tokens_; }
  int threads() const { return threads_; }
  Index bytes() const { return bytes_; }
  std::byte* memory() const { return memory_.get(); }

 private:
  Index tokens_, bytes_;
  int threads_;
  std::shared_ptr<std::byte> memory_;
};

}  // namespace dsa::cpu
