// optimized/cuda/model/attention.cpp — MLA and the lightning indexer of one pass.
#include "optimized/cuda/model/pass.cuh"
#include "optimized/cuda/ops/indexer_topk.cuh"
#include "optimized/cuda/ops/linear_heads.cuh"
#include "optimized/cuda/ops/mla.cuh"
#include "optimized/cuda/ops/norms.cuh"
#include "optimized/cuda/ops/quantise.cuh"
#include "optimized/cuda/ops/rope.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

template <class T>
Pages<const T> readable(Pages<T> x) {
  return {{x.pages.data, {x.pages.shape[0]}}, x.page_rows, x.rows, x.width, x.first};
}

}  // namespace

template <class X, class Row>
void Pass<X, Row>::queries(const DeviceAttention<X>& w) const {
  const Index N = config.num_attention_heads, B = config.qk_nope_head_dim,
              P = config.qk_rope_head_dim;
  if (config.q_lora_rank) {
    linear(b.q_a, h(), w.q_a_proj);
    rmsnorm<X>(stream, b.c_q, b.q_a, w.q_a_layernorm, config.latent_norm_eps);
    linear(b.q, b.c_q, w.q_b_proj);
  } else {
    linear(b.q, h(), w.q_proj);
  }
  rope(stream, as<3>(b.q, {T, N, B + P}), b.in.cos, b.in.sin, B, config.rope_layout);
}

/// q_absorbed = [W_UK^T q_nope | q_rope] of every head: it meets the latent rows as they are.
/// `out`, which attention writes later, holds the first part in fp32.
template <class X, class Row>
void Pass<X, Row>::absorb(const DeviceAttention<X>& w) const {
  const Index N = config.num_attention_heads, B = config.qk_nope_head_dim,
              P = config.qk_rope_head_dim, R = config.kv_lora_rank;
  const DeviceView<const X, 2> q = narrowed(b.q_x, b.q);
  linear_heads<X>(stream, b.out, as<3>(q, {T, N, B + P}), w.w_uk);
  const DeviceView<X, 2> absorbed = as<2>(b.q_absorbed, {T * N, R + P});
  copy<X, float>(stream, absorbed, 0, as<2>(b.out, {T * N, R}), 0, R);
  copy<X, X>(stream, absorbed, R, as<2>(q, {T * N, B + P}), B, P);
}

template <class X, class Row>
void Pass<X, Row>::cache_latent(Index l, const DeviceAttention<X>& w) const {
  const Index P = config.qk_rope_head_dim, R = config.kv_lora_rank;
  linear(b.latent, h(), w.kv_a_proj_with_mqa);
  rope(stream, as<3>(b.latent, {T, 1, R + P}), b.in.cos, b.in.sin, R, config.rope_layout);
  copy<float, float>(stream, b.kv_a, 0, b.latent, 0, R);
  rmsnorm<float>(stream, b.c_kv, b.kv_a, w.kv_a_layernorm, config.latent_norm_eps);
  tell(l, ".self_attn.kv_a_layernorm", b.c_kv);
  copy<float, float>(stream, b.latent, 0, b.c_kv, 0, R);

  DeviceView<const Row, 2> fresh;
  if constexpr (std::is_same_v<Row, e4m3>) {
    latent_e4m3_rows(stream, b.latent_rows, b.latent, R, config.fp8_scale_ue8m0);
    fresh = b.latent_rows;
  } else {
    fresh = narrowed(b.latent_rows, b.latent);
  }
  store_rows<Row>(stream, layout.latent(l, pages), fresh, b.in.end);
}

template <class X, class Row>
void Pass<X, Row>::cache_index_key(Index l, const DeviceIndexer<X>& w) const {
  const Indexer& indexer = *config.indexer;
  const Index D = indexer.head_dim, P = config.qk_rope_head_dim;
  linear(b.k_raw, h(), {w.wk, {}});
  if (indexer.key_norm == Indexer::KeyNorm::layer_norm)
    layernorm<float>(stream, b.k_index, b.k_raw, w.k_norm, w.k_norm_bias, indexer.key_norm_eps);
  else if (indexer.key_norm == Indexer::KeyNorm::rms_norm)
    rmsnorm<float>(stream, b.k_index, b.k_raw, w.k_norm, indexer.key_norm_eps);
  else
    copy<float, float>(stream, b.k_index, 0, b.k_raw, 0, D);
  tell(l, ".self_attn.indexer.k_norm", b.k_index);
  rope(stream, as<3>(b.k_index, {T, 1, D}), b.in.cos, b.in.sin, indexer.rope_first ? 0 : D - P,
       indexer.rope_layout);

  DeviceView<const Row, 2> fresh;
  if constexpr (std::is_same_v<Row, e4m3>) {
    hadamard_e4m3_rows(stream, b.index_rows, b.k_index, config.fp8_scale_ue8m0);
    fresh = b.index_rows;
  } else {
    fresh = narrowed(b.index_rows, b.k_index);
  }
  store_rows<Row>(stream, layout.index_keys(l, pages), fresh, b.in.end);
}

/// q as it meets the keys, and head weights that carry every scale.
template <class X, class Row>
DeviceView<const Row, 3> Pass<X, Row>::index_queries(const DeviceIndexer<X>& w) const {
  const Indexer& indexer = *config.indexer;
  const Index H = indexer.n_heads, D = indexer.head_dim, P = config.qk_rope_head_dim;
  const DeviceView<float, 2> q = as<2>(b.q_index, {T, H * D});
  const bool from_latent = indexer.query_source == Indexer::QuerySource::q_latent;
  linear(q, from_latent ? DeviceView<const X, 2>(b.c_q) : h(), {w.wq_b, {}});
  rope(stream, b.q_index, b.in.cos, b.in.sin, indexer.rope_first ? 0 : D - P, indexer.rope_layout);

  if (indexer.head_weights == Indexer::HeadWeights::projected)
    linear_f32(b.head_weights, w.weights_proj);
  else
    fill(stream, b.head_weights, 1);
  DeviceView<const Row, 3> queries;
  if constexpr (std::is_same_v<Row, e4m3>) {
    hadamard_e4m3(stream, as<2>(b.q_rows, {T * H, D}), as<1>(b.q_scale, {T * H}),
                  as<2>(q, {T * H, D}), config.fp8_scale_ue8m0);
    queries = b.q_rows;
  } else {
    queries = as<3>(narrowed(as<2>(b.q_rows, {T, H * D}), q), {T, H, D});
  }
  scale_weights(stream, b.head_weights, float(indexer.dot_scale * indexer.weight_scale), b.q_scale);
  return queries;
}

/// The lightning indexer: caches its keys; scores them where some token sees more than index_topk.
template <class X, class Row>
void Pass<X, Row>::select(Index l) const {
  const bool relu = config.indexer->activation == Indexer::Activation::relu;
  cache_index_key(l, layer(l).indexer);
  if (!sees_all) {
    const DeviceView<const Row, 3> q = index_queries(layer(l).indexer);
    indexer_topk<Row>(stream, b.chosen, b.nan_at,
                      {.q = q,
                       .k = readable(layout.index_keys(l, pages)),
                       .w = b.head_weights,
                       .relu = relu,
                       .visible = visible(),
                       .longest = longest},
                      b.indexer_scratch);
    watch<std::int32_t>(stream, rows(b.in.flags, 0, 1), std::int32_t(l + 1),
                        as<2>(b.nan_at, {T, 1}));
  }
  tell_decision(l, ".self_attn.indexer", b.chosen, [&](View<std::int32_t, 2> chosen) {
    for (const Segment<Row>& s : segments)
      for (Index t = s.begin; t < s.end; ++t) {
        std::int32_t next = host.begin(t);
        for (std::int32_t& key : chosen[t]) {
          if (sees_all) key = next < host.end(t) ? next++ : -1;
          if (key != -1) key -= std::int32_t(s.first_key);
        }
      }
  });
}

template <class X, class Row>
void Pass<X, Row>::attend(Index l) const {
  const MlaOut y{.out = b.out, .lse = b.lse};
  const MlaIn<Row> in{.q = b.q_absorbed,
                      .kv = readable(layout.latent(l, pages)),
                      .scale = config.attention_scale()};
  if (is_sparse() && !sees_all)
    mla_sparse(stream, y, in, b.chosen, b.attention_scratch);
  else
    mla_dense(stream, y, in, visible(), b.attention_scratch);
}

/// y = o_proj( W_UV out ).
template <class X, class Row>
void Pass<X, Row>::project_heads(const DeviceAttention<X>& w) const {
  const Index N = config.num_attention_heads, R = config.kv_lora_rank, U = config.v_head_dim;
  const DeviceView<const X, 2> out = narrowed(b.out_x, as<2>(b.out, {T, N * R}));
  linear_heads<X>(stream, b.heads, as<3>(out, {T, N, R}), w.w_uv);
  linear(b.y, narrowed(b.heads_x, as<2>(b.heads, {T, N * U})), w.o_proj);
}

template <class X, class Row>
void Pass<X, Row>::attention(Index l) const {
  const DeviceAttention<X>& w = layer(l).attention;
  queries(w);
  absorb(w);
  cache_latent(l, w);
  if (is_sparse() && config.indexer->computes[std::size_t(l)]) select(l);
  attend(l);
  project_heads(w);
  tell(l, ".self_attn.o_proj", b.y);
}

template struct Pass<float, float>;
template struct Pass<bf16, bf16>;
template struct Pass<bf16, e4m3>;

}  // namespace dsa::cuda::DSA_PLACE
