#include "optimized/train/model/buffers.hpp"

#include <algorithm>

namespace dsa::train {
namespace {

template <class T, int Rank>
void place(Pieces& pieces, View<T, Rank>& view, const std::type_identity_t<Shape<Rank>>& shape) {
  view = {pieces.take<T>(volume<Rank>(shape)), shape};
}

template <class Shape, class... Views>
void place_all(Pieces& pieces, const Shape& shape, Views&... views) {
  (place(pieces, views, shape), ...);
}

/// Rows times width of the largest network.
Index largest_hidden(const Config& c, Index T) {
  const Index k = c.num_experts_per_tok, F = c.moe_intermediate_size;
  return T * std::max({c.intermediate_size, k * F, c.n_shared_experts * F});
}

}  // namespace

Kept::Kept(Pieces& pieces, const Config& c, Rows n, bool computes_index, bool is_moe) {
  const Index T = n.own;
  place_all(pieces, Shape<2>{T, c.hidden_size}, x, mid);
  place(pieces, heads, {T, c.num_attention_heads, c.v_head_dim});
  place(pieces, lse, {T, c.num_attention_heads});
  if (computes_index) place(pieces, chosen, {T, std::min(c.indexer->topk, n.all)});
  if (!is_moe) return;
  place(pieces, experts, {T, c.num_experts_per_tok});
  place(pieces, mixing, {T, c.num_experts_per_tok});
}

/// Keys of all rows: what a rank has of them lies elsewhere, where that is not all.
void Activations::place_keys(Pieces& pieces, const Config& c, Rows n) {
  const Index N = c.num_attention_heads, R = c.kv_lora_rank, P = c.qk_rope_head_dim,
              B = c.qk_nope_head_dim, U = c.v_head_dim, T = n.all;
  const bool divided = n.own < T;
  all_c_kv = c_kv, d_all_c_kv = d_c_kv;
  all_k_rope = k_rope, d_all_k_rope = d_k_rope;
  if (divided) {
    place_all(pieces, Shape<2>{T, R}, all_c_kv, d_all_c_kv);
    place_all(pieces, Shape<2>{T, P}, all_k_rope, d_all_k_rope);
  }
  place_all(pieces, Shape<2>{T, N * (B + U)}, kv, d_kv);
  place_all(pieces, Shape<3>{T, N, B + P}, k, d_k);
  place_all(pieces, Shape<3>{T, N, U}, v, d_v);
  if (n.runs == 1) return;
  place(pieces, d_k_of_run, {T, N, B + P});
  place(pieces, d_v_of_run, {T, N, U});
}

void Activations::place_indexer(Pieces& pieces, const Config& c, Rows n) {
  const Index H = c.indexer->n_heads, D = c.indexer->head_dim, Q = n.own, T = n.all;
  place_all(pieces, Shape<3>{Q, H, D}, q_index, d_q_index);
  place_all(pieces, Shape<2>{Q, D}, k_raw, k_index, d_k_index, d_k_raw);
  all_k_index = k_index, d_all_k_index = d_k_index;
  if (Q < T) place_all(pieces, Shape<2>{T, D}, all_k_index, d_all_k_index);
  if (n.runs > 1) place(pieces, d_k_index_of_run, {T, D});
  if (c.indexer->head_weights == Indexer::HeadWeights::projected)
    place_all(pieces, Shape<2>{Q, H}, head_weights, d_head_weights);
  place(pieces, row_loss, {Q});
}

Activations::Activations(Pieces& pieces, const Config& c, Rows n) {
  const Index C = c.hidden_size, N = c.num_attention_heads, R = c.kv_lora_rank,
              P = c.qk_rope_head_dim, B = c.qk_nope_head_dim, U = c.v_head_dim, T = n.own,
              A = c.q_lora_rank.value_or(0), k_experts = c.num_experts_per_tok;
  place_all(pieces, Shape<2>{T, C}, h, d_h, g, d_g);
  place_all(pieces, Shape<2>{T, A}, q_a, c_q, d_c_q, d_q_a);
  place_all(pieces, Shape<2>{T, R + P}, kv_a, d_kv_a);
  place_all(pieces, Shape<2>{T, R}, latent, c_kv, d_c_kv, d_latent);
  place_all(pieces, Shape<2>{T, P}, k_rope, d_k_rope);
  place_all(pieces, Shape<3>{T, N, B + P}, q, d_q);
  place(pieces, d_heads, {T, N, U});
  place(pieces, teacher_lse, {T, N});
  place_keys(pieces, c, n);
  if (c.indexer) place_indexer(pieces, c, n);
  const Index hidden_numbers = largest_hidden(c, T);
  place_all(pieces, Shape<1>{hidden_numbers}, hidden, d_hidden);
  place_all(pieces, Shape<1>{2 * hidden_numbers}, gate_up, d_gate_up);
  if (c.n_routed_experts == 0) return;
  place_all(pieces, Shape<2>{T, c.n_routed_experts}, logits, s, d_s);
  place(pieces, d_mixing, {T, k_experts});
  place(pieces, pair, {T * k_experts});
  place(pieces, row, {T, k_experts});
  place_all(pieces, Shape<2>{T * k_experts, C}, sorted, answers, d_sorted);
}

HeadBuffers::HeadBuffers(Pieces& pieces, const Config& c) {
  constexpr Index most = 1 << 22;  // logits at once, 16 MB
  rows = std::clamp<Index>(most / c.vocab_size, 64, 1024);
  place_all(pieces, Shape<2>{rows, c.hidden_size}, x, h, d_h, d_x);
  place(pieces, logits, {rows, c.vocab_size});
  place(pieces, targets, {rows});
  place(pieces, factor, {rows});
  place(pieces, loss, {rows});
}

MtpBuffers::MtpBuffers(Pieces& pieces, const Config& c, Index T) {
  place_all(pieces, Shape<2>{T, c.hidden_size}, e, d_e, part, y, z, d_z);
  place_all(pieces, Shape<2>{T, 2 * c.hidden_size}, both, d_both);
}

Buffers::Buffers(Pieces& pieces, const Config& c, Rows n, bool has_mtp)
    : head(pieces, c),
      mtp(pieces, c, has_mtp ? n.own : 0),
      activations_at(pieces),
      activations(pieces, c, n) {
  const Index T = n.own;
  place(pieces, tokens, {T});
  place(pieces, begin, {n.all});
  place_all(pieces, Shape<2>{T, c.qk_rope_head_dim / 2}, cos, sin);
  place(pieces, kl_weight, {T});
  place_all(pieces, Shape<2>{T, c.hidden_size}, x, d_x);
  for (Index l = 0; l < c.num_hidden_layers; ++l) {
    const auto i = static_cast<std::size_t>(l);
    kept.emplace_back(pieces, c, n, c.indexer && c.indexer->computes[i], c.is_moe[i]);
  }
  if (has_mtp) kept.emplace_back(pieces, c, n, c.indexer.has_value(), c.n_routed_experts > 0);
}

}  // namespace dsa::train
