// optimized/cuda/model/workspace.cuh — all memory of a pass on the device, in one piece.
//
// Buffers<X, Row> is the one list of the arrays that a pass of T tokens keeps beside weights and
// caches. Built over no memory it gives the size; built over the workspace it is the views.
// Attention and feed-forward networks take turns: what one needs begins where the other's begins.
// The size does not depend on how many tokens came before.
#pragma once

#include "core/config.hpp"
#include "optimized/cuda/device/tensor.cuh"
#include "optimized/shared/pieces.hpp"

namespace dsa::cuda::DSA_PLACE {

/// Views of memory of the host, and of the device.
struct HostMemory {
  template <class T, int Rank>
  using ViewOf = View<T, Rank>;
};
struct DeviceMemory {
  template <class T, int Rank>
  using ViewOf = DeviceView<T, Rank>;
};

/// The inputs of a pass, uploaded in one piece: the host's copy, or the device's.
template <class Memory>
struct Inputs {
  template <class T, int Rank>
  using V = typename Memory::template ViewOf<T, Rank>;

  V<std::int32_t, 1> flags;       // (2): zero; a NaN's layer + 1, of the indexer and of the router
  V<std::int32_t, 1> tokens;      // (T)
  V<std::int32_t, 1> begin, end;  // (T): visible rows of the cache
  V<std::int32_t, 1> last;        // (feeds): the last token of each
  V<float, 2> cos, sin;           // (T, P/2)
  Index bytes = 0;                // of all of it

  Inputs(std::byte* memory, const Config&, Index T, Index feeds);
};

/// X: what matrices are multiplied with, float or bf16. Row: of the caches, float, bf16 or e4m3.
/// Views of X that only repeat a float view in bf16 are empty where X is float.
template <class X, class Row>
struct Buffers {
  // Throughout.
  Inputs<DeviceMemory> in;
  DeviceView<float, 2> x, h_wide;      // (T, C): residual stream; a norm's output
  DeviceView<X, 2> h;                  // (T, C): the same as X
  DeviceView<float, 2> y;              // (T, C): what a block adds to x
  DeviceView<std::int32_t, 2> chosen;  // (T, K): of the last layer that selected
  DeviceView<float, 2> logits;         // (logits_rows, V)

  // Attention.
  DeviceView<float, 2> q_a;         // (T, A)
  DeviceView<X, 2> c_q;             // (T, A)
  DeviceView<float, 2> q;           // (T, N*(B+P))
  DeviceView<X, 2> q_x;             // the same as X
  DeviceView<X, 3> q_absorbed;      // (T, N, R+P)
  DeviceView<float, 2> latent;      // (T, R+P)
  DeviceView<float, 2> kv_a, c_kv;  // (T, R)
  DeviceView<Row, 2> latent_rows;   // (T, latent_width)
  DeviceView<float, 3> out;         // (T, N, R)
  DeviceView<float, 2> lse;         // (T, N)
  DeviceView<X, 2> out_x;           // (T, N*R)
  DeviceView<float, 3> heads;       // (T, N, U)
  DeviceView<X, 2> heads_x;         // (T, N*U)
  DeviceView<float, 1> attention_scratch;
  DeviceView<float, 2> k_raw, k_index;         // (T, D)
  DeviceView<Row, 2> index_rows;               // (T, index_width)
  DeviceView<float, 3> q_index;                // (T, H, D)
  DeviceView<Row, 3> q_rows;                   // (T, H, D)
  DeviceView<float, 2> head_weights, q_scale;  // (T, H)
  DeviceView<std::int32_t, 1> nan_at;          // (T)
  DeviceView<std::uint32_t, 1> indexer_scratch;

  // Feed-forward networks.
  DeviceView<float, 2> router_logits, expert_weights;  // (T, E), (T, num_experts_per_tok)
  DeviceView<std::int32_t, 2> experts;                 // (T, num_experts_per_tok)
  DeviceView<X, 3> experts_hidden;                     // (T, num_experts_per_tok, expert's F)
  DeviceView<std::uint32_t, 1> experts_scratch;
  DeviceView<float, 1> gate_up;  // T * 2F of the widest network
  DeviceView<X, 1> hidden;       // T * F
  DeviceView<float, 2> shared;   // (T, C): the shared experts' sum

  Index bytes = 0;  // of all of it

  Buffers(std::byte* memory, const Config&, Index T, Index feeds);
};

/// Rows of logits that are computed, and downloaded, at a time, in a pass of up to T tokens.
constexpr Index logits_rows(Index T) { return T < 64 ? T : 64; }

/// Bytes of a pass of up to T tokens.
template <class X, class Row>
Index workspace_bytes(const Config&, Index T);

}  // namespace dsa::cuda::DSA_PLACE
