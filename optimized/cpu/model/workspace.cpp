#include "optimized/cpu/model/workspace.hpp"

#include <type_traits>

#include "core/threads.hpp"
#include "optimized/cpu/model/cache.hpp"
#include "optimized/cpu/ops/experts.hpp"
#include "optimized/cpu/ops/indexer_topk.hpp"
#include "optimized/cpu/ops/mla_dense.hpp"
#include "optimized/cpu/ops/mla_expanded.hpp"
#include "optimized/cpu/ops/mla_sparse.hpp"
#include "optimized/cpu/ops/router.hpp"
#include "optimized/shared/memory.hpp"
#include "optimized/shared/pieces.hpp"

namespace dsa::cpu {
namespace {

/// Bytes per thread: the most that an op of the pass needs.
template <class X>
Index scratch_per_thread(const Config& c, Index T, int threads) {
  const Index N = c.num_attention_heads, R = c.kv_lora_rank, P = c.qk_rope_head_dim,
              B = c.qk_nope_head_dim, U = c.v_head_dim, C = c.hidden_size,
              k = c.num_experts_per_tok, shared = c.n_shared_experts * c.moe_intermediate_size;
  const Index widest = std::max({C, c.q_lora_rank.value_or(0), R, N * U, c.intermediate_size,
                                 c.moe_intermediate_size, shared});
  Index bytes = std::max({linear_scratch(widest), mla_dense_scratch(N, R, P), router_scratch(c)});
  if (c.indexer) {
    const Indexer& i = *c.indexer;
    bytes = std::max({bytes, indexer_topk_scratch(i.n_heads, i.head_dim, i.topk),
                      mla_sparse_scratch(N, R, P, i.topk)});
  }
  const Threads scope(threads);  // what follows is for as many as there are
  const Index whole =
      std::max({experts_scratch(T, 1, C, c.intermediate_size), experts_scratch(T, 1, C, shared),
                experts_scratch(T, k, C, c.moe_intermediate_size),
                mla_expanded_scratch<X>(T, N, R, P, B, U)});
  return rounded_up(std::max(bytes, (whole + threads - 1) / threads), 64);
}

template <class T, int Rank>
void place(Pieces& pieces, View<T, Rank>& view, const std::type_identity_t<Shape<Rank>>& shape) {
  view = {pieces.take<T>(volume<Rank>(shape)), shape};
}

}  // namespace

template <class X, class Row>
Buffers<X, Row>::Buffers(std::byte* memory, const Config& c, Index T, int threads) {
  constexpr bool narrow = !std::is_same_v<X, float>, quantised = std::is_same_v<Row, e4m3>;
  const Index C = c.hidden_size, N = c.num_attention_heads, R = c.kv_lora_rank,
              P = c.qk_rope_head_dim, B = c.qk_nope_head_dim, U = c.v_head_dim,
              A = c.q_lora_rank.value_or(0);
  Pieces all(memory);
  place(all, x, {T, C});
  place(all, h_wide, {T, C});
  if (narrow) place(all, h, {T, C});
  place(all, y, {T, C});
  place(all, tokens, {T});
  place(all, positions, {T});
  place(all, begin, {T});
  place(all, end, {T});
  place(all, cos, {T, P / 2});
  place(all, sin, {T, P / 2});
  if (c.indexer) place(all, chosen, {T, c.indexer->topk});
  scratch.bytes_per_thread = scratch_per_thread<X>(c, T, threads);
  scratch.data = all.take_bytes(scratch.bytes_per_thread * threads);

  Pieces attention = all, networks = all;  // they take turns
  place(attention, products, {N});
  place(attention, q_a, {T, A});
  place(attention, c_q, {T, A});
  place(attention, q, {T, N * (B + P)});
  if (narrow) place(attention, q_x, {T, N * (B + P)});
  place(attention, q_absorbed, {T, N, R + P});
  place(attention, kv_a, {T, R});
  place(attention, c_kv, {T, R});
  place(attention, latent, {T, R + P});
  if (narrow) place(attention, latent_rows, {T, latent_width<Row>(c)});
  place(attention, out, {T, N, R});
  place(attention, lse, {T, N});
  if (narrow) place(attention, out_x, {T, N * R});
  place(attention, heads, {T, N * U});
  if (narrow) place(attention, values, {T, N, U});
  if (c.indexer) {
    const Index H = c.indexer->n_heads, D = c.indexer->head_dim;
    place(attention, k_raw, {T, D});
    place(attention, k_index, {T, D});
    if (narrow) place(attention, index_rows, {T, index_width<Row>(c)});
    place(attention, q_index, {T, H, D});
    if (narrow) place(attention, q_rows, {T, H, D});
    place(attention, head_weights, {T, H});
    if (quantised) place(attention, q_scale, {T, H});
  }

  place(networks, router_logits, {T, c.n_routed_experts});
  place(networks, expert_weights, {T, c.num_experts_per_tok});
  place(networks, experts, {T, c.num_experts_per_tok});
  bytes = std::max(attention.bytes(), networks.bytes());
}

template struct Buffers<float, float>;
template struct Buffers<bf16, bf16>;
template struct Buffers<bf16, e4m3>;

Index workspace_bytes(const Config& c, Format format, Index T, int threads) {
  switch (format) {
    case Format::fp32:
      return Buffers<float, float>(nullptr, c, T, threads).bytes;
    case Format::bf16:
      return Buffers<bf16, bf16>(nullptr, c, T, threads).bytes;
    default:
      return Buffers<bf16, e4m3>(nullptr, c, T, threads).bytes;
  }
}

Workspace::Workspace(const Config& c, Format format, Index T, int threads)
    : tokens_(T),
      bytes_(workspace_bytes(c, format, T, threads)),
      threads_(threads),
      memory_(allocate(bytes_, "a pass of " + std::to_string(T) + " tokens")) {}

}  // namespace dsa::cpu
