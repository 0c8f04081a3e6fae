#include "optimized/cuda/model/workspace.cuh"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "optimized/cuda/ops/experts.cuh"
#include "optimized/cuda/ops/indexer_topk.cuh"
#include "optimized/cuda/ops/mla.cuh"
#include "optimized/shared/rows.hpp"

namespace dsa::cuda::DSA_PLACE {
namespace {

template <class T, int Rank>
void place(Pieces& pieces, View<T, Rank>& view, const std::type_identity_t<Shape<Rank>>& shape) {
  view = {pieces.take<T>(volume<Rank>(shape)), shape};
}
template <class T, int Rank>
void place(Pieces& pieces, DeviceView<T, Rank>& view,
           const std::type_identity_t<Shape<Rank>>& shape) {
  view.data = pieces.take<T>(volume<Rank>(shape));
  for (std::size_t axis = 0; axis < Rank; ++axis) view.shape[axis] = shape[axis];
}

constexpr Index any_length = std::numeric_limits<Index>::max();

/// The most that one feed of up to T tokens needs, whatever is cached.
template <class Row>
Index attention_scratch(const Config& c, Index T) {
  Index most = 0;
  for (Index t = 1; t <= T; ++t)
    most = std::max(most, mla_workspace<Row>(t, c.num_attention_heads, c.kv_lora_rank,
                                             c.qk_rope_head_dim, any_length));
  return most;
}

Index indexer_scratch(const Config& c, Index T) {
  Index most = 0;
  for (Index t = 1; t <= T; ++t)
    most = std::max(most, indexer_topk_least_workspace(t, c.indexer->topk));
  return most;
}

/// F of the widest network that every token goes through.
Index widest_network(const Config& c) {
  const bool any_dense =
      !std::all_of(c.is_moe.begin(), c.is_moe.end(), [](bool moe) { return moe; });
  return std::max(any_dense ? c.intermediate_size : 0,
                  c.n_shared_experts * c.moe_intermediate_size);
}

}  // namespace

template <class Memory>
Inputs<Memory>::Inputs(std::byte* memory, const Config& c, Index T, Index feeds) {
  Pieces pieces(memory);
  place(pieces, flags, {2});
  place(pieces, tokens, {T});
  place(pieces, begin, {T});
  place(pieces, end, {T});
  place(pieces, last, {feeds});
  place(pieces, cos, {T, c.qk_rope_head_dim / 2});
  place(pieces, sin, {T, c.qk_rope_head_dim / 2});
  bytes = pieces.bytes();
}

template <class X, class Row>
Buffers<X, Row>::Buffers(std::byte* memory, const Config& c, Index T, Index feeds)
    : in(memory, c, T, feeds) {
  constexpr bool narrow = !std::is_same_v<X, float>, quantised = std::is_same_v<Row, e4m3>;
  const Index C = c.hidden_size, N = c.num_attention_heads, R = c.kv_lora_rank,
              P = c.qk_rope_head_dim, B = c.qk_nope_head_dim, U = c.v_head_dim,
              A = c.q_lora_rank.value_or(0), k = c.num_experts_per_tok;
  Pieces all(memory);
  all.take_bytes(in.bytes);
  place(all, x, {T, C});
  place(all, h_wide, {T, C});
  if (narrow) place(all, h, {T, C});
  place(all, y, {T, C});
  if (c.indexer) place(all, chosen, {T, c.indexer->topk});
  place(all, logits, {logits_rows(T), c.vocab_size});

  Pieces attention = all, networks = all;  // they take turns
  place(attention, q_a, {T, A});
  place(attention, c_q, {T, A});
  place(attention, q, {T, N * (B + P)});
  if (narrow) place(attention, q_x, {T, N * (B + P)});
  place(attention, q_absorbed, {T, N, R + P});
  place(attention, latent, {T, R + P});
  place(attention, kv_a, {T, R});
  place(attention, c_kv, {T, R});
  if (narrow) place(attention, latent_rows, {T, latent_width<Row>(c)});
  place(attention, out, {T, N, R});
  place(attention, lse, {T, N});
  if (narrow) place(attention, out_x, {T, N * R});
  place(attention, heads, {T, N, U});
  if (narrow) place(attention, heads_x, {T, N * U});
  place(attention, attention_scratch, {cuda::DSA_PLACE::attention_scratch<Row>(c, T)});
  if (c.indexer) {
    const Index H = c.indexer->n_heads, D = c.indexer->head_dim;
    place(attention, k_raw, {T, D});
    place(attention, k_index, {T, D});
    if (narrow) place(attention, index_rows, {T, index_width<Row>(c)});
    place(attention, q_index, {T, H, D});
    if (narrow) place(attention, q_rows, {T, H, D});
    place(attention, head_weights, {T, H});
    if (quantised) place(attention, q_scale, {T, H});
    place(attention, nan_at, {T});
    place(attention, indexer_scratch, {cuda::DSA_PLACE::indexer_scratch(c, T)});
  }

  place(networks, router_logits, {T, c.n_routed_experts});
  place(networks, expert_weights, {T, k});
  place(networks, experts, {T, k});
  place(networks, experts_hidden, {T, k, c.moe_intermediate_size});
  place(networks, experts_scratch,
        {experts_workspace<X>(T, k, c.n_routed_experts, C, c.moe_intermediate_size)});
  place(networks, gate_up, {T * 2 * widest_network(c)});
  place(networks, hidden, {T * widest_network(c)});
  place(networks, shared, {T, C});
  bytes = std::max(attention.bytes(), networks.bytes());
}

template <class X, class Row>
Index workspace_bytes(const Config& c, Index T) {
  return Buffers<X, Row>(nullptr, c, T, T).bytes;
}

template struct Inputs<HostMemory>;
template struct Inputs<DeviceMemory>;
template struct Buffers<float, float>;
template struct Buffers<bf16, bf16>;
template struct Buffers<bf16, e4m3>;
template Index workspace_bytes<float, float>(const Config&, Index);
template Index workspace_bytes<bf16, bf16>(const Config&, Index);
template Index workspace_bytes<bf16, e4m3>(const Config&, Index);

}  // namespace dsa::cuda::DSA_PLACE
