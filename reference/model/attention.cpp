#include "core/trace_names.hpp"
#include "reference/model/block.hpp"

namespace dsa::reference {

/// Rotates the rotary channels of the indexer's heads, which lie before (or behind) the rest.
template <class Real>
Tensor<Real, 2> Block<Real>::index_rotated(const std::string& name, const Tensor<Real, 2>& x,
                                           Index heads) const {
  const Indexer& indexer = *config.indexer;
  const Index D = indexer.head_dim, P = config.qk_rope_head_dim,
              first = indexer.rope_first ? 0 : D - P;
  Tensor<Real, 2> turned = slice(x, heads, first, first + P), y = x;
  pass.ops.rope(at + name, as<3>(turned.view(), {T, heads, P}), cos, sin, indexer.rope_layout);
  for (Index t = 0; t < T; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < P; ++i) y(t, h * D + first + i) = turned(t, h * P + i);
  return tapped(at + name, std::move(y));
}

/// Section 3 of the V3.2 report: the lightning indexer scores every visible key and keeps K.
template <class Real>
Tensor<Index, 2> Block<Real>::select(const Tensor<Real, 2>& x, const Tensor<Real, 2>& c_q) const {
  const Indexer& indexer = *config.indexer;
  const IndexerWeights& w = weights.indexer;
  const Index H = indexer.n_heads, D = indexer.head_dim, S = visible.keys();

  const bool from_latent = indexer.query_source == Indexer::QuerySource::q_latent;
  const Tensor<Real, 2> q = index_rotated(
      names::indexer_q, linear(names::indexer_wq_b, from_latent ? c_q : x, w.wq_b), H);
  const Tensor<Real, 2> k_raw = linear(names::indexer_wk, x, w.wk);
  Tensor<Real, 2> k_norm({T, D});
  pass.ops.index_key_norm(at + names::indexer_k_norm, k_norm, k_raw, w, indexer);
  Tensor<Real, 2> k =
      index_rotated(names::indexer_k, tapped(at + names::indexer_k_norm, std::move(k_norm)), 1);
  pass.ops.cache(at + names::indexer_k, k);
  append(cache.k_index, k);

  Tensor<Real, 2> head_weights({T, H}, 1);
  if (indexer.head_weights == Indexer::HeadWeights::projected)
    pass.ops.index_head_weights(at + names::indexer_weights_proj, head_weights, x, w.weights_proj);
  head_weights = tapped(at + names::indexer_weights_proj, std::move(head_weights));

  Tensor<Real, 2> scores({T, S});
  pass.ops.indexer_scores(at + names::indexer_scores, scores, as<3>(q.view(), {T, H, D}),
                          rows_of(cache.k_index, D), head_weights, indexer, visible);
  scores = tapped(at + names::indexer_scores, std::move(scores));
  Tensor<Index, 2> chosen({T, std::min(indexer.topk, S)});
  decide(at + names::indexer, scores, chosen);
  return chosen;
}

/// Without sparsity a query reads every key it sees.
template <class Real>
Tensor<Index, 2> Block<Real>::all_visible() const {
  const Index S = visible.keys();
  Tensor<Index, 2> chosen({T, S}, -1);
  for (Index t = 0; t < T; ++t)
    for (Index s = 0, i = 0; s < S; ++s)
      if (visible.sees(t, s)) chosen(t, i++) = s;
  return chosen;
}

/// V2 paper, section 2.1: queries and keys through low-rank latents. `chosen` is this layer's
/// selection, or on entry the one it shares.
template <class Real>
Tensor<Real, 2> Block<Real>::attention(const Tensor<Real, 2>& x, bool computes_index,
                                       Tensor<Index, 2>& chosen) const {
  const Attention& w = weights.self_attn;
  const Index N = config.num_attention_heads, B = config.qk_nope_head_dim,
              P = config.qk_rope_head_dim, R = config.kv_lora_rank, U = config.v_head_dim;
  Tensor<Real, 2> c_q, q;
  if (config.q_lora_rank) {
    c_q = rmsnorm(names::q_a_layernorm, linear(names::q_a_proj, x, w.q_a_proj), w.q_a_layernorm,
                  config.latent_norm_eps);
    q = linear(names::q_b_proj, c_q, w.q_b_proj);
  } else {
    q = linear(names::q_proj, x, w.q_proj);
  }
  const Tensor<Real, 2> q_nope = slice(q, N, 0, B);
  const Tensor<Real, 2> q_rope =
      rotated(names::q_rope, slice(q, N, B, B + P), N, config.rope_layout);

  const Tensor<Real, 2> kv_a = linear(names::kv_a_proj_with_mqa, x, w.kv_a_proj_with_mqa);
  Tensor<Real, 2> c_kv = rmsnorm(names::kv_a_layernorm, slice(kv_a, 1, 0, R), w.kv_a_layernorm,
                                 config.latent_norm_eps);
  Tensor<Real, 2> k_rope = rotated(names::k_rope, slice(kv_a, 1, R, R + P), 1, config.rope_layout);
  pass.ops.cache(at + names::kv_a_layernorm, c_kv);
  pass.ops.cache(at + names::k_rope, k_rope);
  append(cache.c_kv, c_kv);
  append(cache.k_rope, k_rope);

  if (computes_index) chosen = select(x, c_q);
  const bool sparse = config.indexer && config.use_sparse_attention;
  const Tensor<Index, 2> keys = sparse ? chosen : all_visible();

  Tensor<Real, 2> out({T, N * U});
  const auto out3 = as<3>(out.view(), {T, N, U});
  const auto q_nope3 = as<3>(q_nope.view(), {T, N, B}), q_rope3 = as<3>(q_rope.view(), {T, N, P});
  if (pass.form == MlaForm::expanded) {
    const Tensor<Real, 2> kv = linear(names::kv_b_proj, rows_of(cache.c_kv, R), w.kv_b_proj);
    pass.ops.mla_expanded(at + names::heads, out3, q_nope3, q_rope3,
                          as<3>(kv.view(), {visible.keys(), N, B + U}), rows_of(cache.k_rope, P),
                          keys, config.attention_scale());
  } else {
    pass.ops.mla_absorbed(at + names::heads, out3, q_nope3, q_rope3, rows_of(cache.c_kv, R),
                          rows_of(cache.k_rope, P), w.kv_b_proj, keys, config.attention_scale());
  }
  const Tensor<Real, 2> o =
      linear(names::o_proj, tapped(at + names::heads, std::move(out)), w.o_proj);
  return tapped(at + names::self_attn, o);
}

template struct Block<double>;
template struct Block<long double>;
template struct Block<Dual>;

}  // namespace dsa::reference
