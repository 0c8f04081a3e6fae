#include "core/threads.hpp"
#include "optimized/cpu/model/pass.hpp"
#include "optimized/cpu/ops/indexer_topk.hpp"
#include "optimized/cpu/ops/mla_dense.hpp"
#include "optimized/cpu/ops/mla_expanded.hpp"
#include "optimized/cpu/ops/mla_sparse.hpp"
#include "optimized/cpu/ops/norms.hpp"
#include "optimized/cpu/ops/rope.hpp"

namespace dsa::cpu {
namespace {

template <class T>
Pages<const T> readable(Pages<T> x) {
  return {x.pages, x.page_rows, x.rows, x.width};
}

/// The rows of a segment, to the end of its cache.
template <class Row>
void store(Pages<Row> cache, View<const Row, 2> fresh, const Segment& s) {
  for (Index t = s.begin; t < s.end; ++t)
    std::copy_n(fresh[t].data, cache.width, cache.row(s.first + t - s.begin));
}

}  // namespace

template <class X, class Row>
void Pass<X, Row>::queries(const PackedAttention& w) const {
  const Index N = config.num_attention_heads, B = config.qk_nope_head_dim,
              P = config.qk_rope_head_dim;
  if (config.q_lora_rank) {
    linear(b.q_a, h(), w.q_a_proj);
    rmsnorm(cpu(), b.c_q, b.q_a, w.q_a_layernorm, config.latent_norm_eps);
    linear(b.q, b.c_q, w.q_b_proj);
  } else {
    linear(b.q, h(), w.q_proj);
  }
  rope(cpu(), as<3>(b.q, {T, N, B + P}), b.cos, b.sin, B, config.rope_layout);
  narrowed(b.q_x, b.q);
}

/// For every head n: columns [n y_width, ...) of y = the first `out` rows of W[n] times columns
/// [n x_width, ...) of x. All heads at once: a decoding step has enough of them for every thread.
template <class X, class Row>
void Pass<X, Row>::linear_heads(Strided<X> y, Index y_width, Index out, Strided<const X> x,
                                Index x_width, const std::vector<Matrix>& w) const {
  for (std::size_t n = 0; n < w.size(); ++n) {
    Product& p = b.products(n) = Product{};
    p.x = x.data + static_cast<Index>(n) * x_width;
    p.x_stride = x.stride;
    p.rows = x.rows;
    p.w = &w[n];
    p.out = out;
    if constexpr (std::is_same_v<X, float>)
      p.y = y.data + static_cast<Index>(n) * y_width;
    else
      p.y_bf16 = y.data + static_cast<Index>(n) * y_width;
    p.y_stride = y.stride;
  }
  multiply(cpu(), {b.products.data, w.size()}, b.scratch);
}

template <class X, class Row>
bool Pass<X, Row>::expands(const Segment& s) const {
  if (is_sparse() && !s.sees_all) return false;
  if (model.mla == MlaForm::automatic)
    return expanded_is_cheaper(config, s.end - s.begin, s.keys());
  return model.mla == MlaForm::expanded;
}

/// q_absorbed = [W_UK^T q_nope | q_rope] of every head: it meets the latent rows as they are.
template <class X, class Row>
void Pass<X, Row>::absorb(const PackedAttention& w) const {
  const Index N = config.num_attention_heads, B = config.qk_nope_head_dim,
              P = config.qk_rope_head_dim, R = config.kv_lora_rank;
  for_each_run(/*expanded=*/false, [&](Index begin, Index end) {
    const View<X, 2> absorbed = as<2>(b.q_absorbed, {T, N * (R + P)});
    linear_heads(rows(absorbed, begin, end), R + P, R, rows(q(), begin, end), B + P, w.w_uk);
    parallel_for(end - begin, N * P / 8, [&](Index at) {
      const Index t = begin + at;
      for (Index n = 0; n < N; ++n)
        std::copy_n(q()[t].data + n * (B + P) + B, P, b.q_absorbed[t][n].data + R);
    });
  });
}

template <class X, class Row>
void Pass<X, Row>::cache_latent(Index l, const PackedAttention& w) const {
  const Index P = config.qk_rope_head_dim, R = config.kv_lora_rank;
  linear(b.kv_a, h(), w.kv_a_latent);
  linear(Strided<float>(b.latent.data + R, T, P, R + P), Strided<const X>(h()), w.kv_a_rope);
  rope(cpu(), as<3>(b.latent, {T, 1, R + P}), b.cos, b.sin, R, config.rope_layout);
  rmsnorm(cpu(), b.c_kv, b.kv_a, w.kv_a_layernorm, config.latent_norm_eps);
  tell(l, ".self_attn.kv_a_layernorm", b.c_kv);
  for (Index t = 0; t < T; ++t) std::copy_n(b.c_kv[t].data, R, b.latent[t].data);

  View<const Row, 2> fresh;
  if constexpr (std::is_same_v<Row, e4m3>) {
    latent_e4m3_rows(cpu(), b.latent_rows, b.latent, R, config.fp8_scale_ue8m0);
    fresh = b.latent_rows;
  } else {
    fresh = narrowed(b.latent_rows, b.latent);
  }
  for (const Segment& s : segments) store(s.cache->latent<Row>(l, s.keys()), fresh, s);
}

template <class X, class Row>
void Pass<X, Row>::cache_index_key(Index l, const PackedIndexer& w) const {
  const Indexer& indexer = *config.indexer;
  const Index D = indexer.head_dim, P = config.qk_rope_head_dim;
  linear(b.k_raw, h(), w.wk);
  if (indexer.key_norm == Indexer::KeyNorm::layer_norm)
    layernorm(cpu(), b.k_index, b.k_raw, w.k_norm, w.k_norm_bias, indexer.key_norm_eps);
  else if (indexer.key_norm == Indexer::KeyNorm::rms_norm)
    rmsnorm(cpu(), b.k_index, b.k_raw, w.k_norm, indexer.key_norm_eps);
  else
    std::copy(b.k_raw.begin(), b.k_raw.end(), b.k_index.begin());
  tell(l, ".self_attn.indexer.k_norm", b.k_index);
  rope(cpu(), as<3>(b.k_index, {T, 1, D}), b.cos, b.sin, indexer.rope_first ? 0 : D - P,
       indexer.rope_layout);

  View<const Row, 2> fresh;
  if constexpr (std::is_same_v<Row, e4m3>) {
    hadamard_e4m3_rows(cpu(), b.index_rows, b.k_index, config.fp8_scale_ue8m0);
    fresh = b.index_rows;
  } else {
    fresh = narrowed(b.index_rows, b.k_index);
  }
  for (const Segment& s : segments) store(s.cache->index_keys<Row>(l, s.keys()), fresh, s);
}

/// q as it meets the keys, and head weights that carry every scale.
template <class X, class Row>
View<const Row, 3> Pass<X, Row>::index_queries(const PackedIndexer& w) const {
  const Indexer& indexer = *config.indexer;
  const Index H = indexer.n_heads, D = indexer.head_dim, P = config.qk_rope_head_dim;
  const View<float, 2> q = as<2>(b.q_index, {T, H * D});
  if (indexer.query_source == Indexer::QuerySource::q_latent)
    linear(q, b.c_q, w.wq_b);
  else
    linear(q, h(), w.wq_b);
  rope(cpu(), b.q_index, b.cos, b.sin, indexer.rope_first ? 0 : D - P, indexer.rope_layout);

  if (indexer.head_weights == Indexer::HeadWeights::projected)
    cpu::linear<float, float>(cpu(), b.head_weights, View<const float, 2>(b.h_wide), w.weights_proj,
                              {}, b.scratch);
  else
    std::fill(b.head_weights.begin(), b.head_weights.end(), 1.0f);
  const auto scale = static_cast<float>(indexer.dot_scale * indexer.weight_scale);
  for (float& weight : b.head_weights) weight *= scale;

  if constexpr (std::is_same_v<Row, float>) {
    return b.q_index;
  } else if constexpr (std::is_same_v<Row, bf16>) {
    to_bf16(cpu(), as<2>(b.q_rows, {T, H * D}), q);
  } else {
    hadamard_e4m3(cpu(), as<2>(b.q_rows, {T * H, D}), as<1>(b.q_scale, {T * H}),
                  as<2>(q, {T * H, D}), config.fp8_scale_ue8m0);
    for (Index i = 0; i < T * H; ++i) b.head_weights.data[i] *= b.q_scale.data[i];
  }
  return b.q_rows;
}

/// The lightning indexer: caches its keys; scores them for feeds that see more than index_topk.
template <class X, class Row>
void Pass<X, Row>::select(Index l) const {
  const Indexer& indexer = *config.indexer;
  const bool relu = indexer.activation == Indexer::Activation::relu;
  cache_index_key(l, layer(l).indexer);
  bool any = false;
  for (const Segment& s : segments) any |= !s.sees_all;
  const View<const Row, 3> q = any ? index_queries(layer(l).indexer) : View<const Row, 3>{};
  for (const Segment& s : segments) {
    const View<std::int32_t, 2> chosen = rows(b.chosen, s.begin, s.end);
    if (!s.sees_all)
      indexer_topk<Row>(cpu(), chosen,
                        {.q = rows(q, s.begin, s.end),
                         .k = readable(s.cache->index_keys<Row>(l, s.keys())),
                         .w = rows(b.head_weights, s.begin, s.end),
                         .relu = relu,
                         .visible = visible(s)},
                        b.scratch);
    else if (tap.decision)
      choose_all(s);
  }
  tell_decision(l, ".self_attn.indexer", b.chosen);
}

template <class X, class Row>
void Pass<X, Row>::choose_all(const Segment& s) const {
  for (Index t = s.begin; t < s.end; ++t) {
    std::int32_t key = b.begin(t);
    for (std::int32_t& chosen : b.chosen[t]) chosen = key < b.end(t) ? key++ : -1;
  }
}

template <class X, class Row>
void Pass<X, Row>::attend(Index l) const {
  const double scale = config.attention_scale();
  const Index N = config.num_attention_heads, B = config.qk_nope_head_dim,
              P = config.qk_rope_head_dim;
  for (const Segment& s : segments) {
    const Pages<const Row> kv = readable(s.cache->latent<Row>(l, s.keys()));
    const View<float, 2> lse = rows(b.lse, s.begin, s.end);
    const MlaOut out{.out = rows(b.out, s.begin, s.end), .lse = lse};
    const MlaIn<X, Row> absorbed{.q = rows(b.q_absorbed, s.begin, s.end), .kv = kv, .scale = scale};
    if (s.expanded)
      mla_expanded<X, Row>(cpu(), {.out = rows(values(), s.begin, s.end), .lse = lse},
                           {.q = rows(as<3>(q(), {T, N, B + P}), s.begin, s.end),
                            .kv = kv,
                            .w = layer(l).attention.w_kv,
                            .visible = visible(s),
                            .scale = scale},
                           b.scratch);
    else if (is_sparse() && !s.sees_all)
      mla_sparse(cpu(), out, absorbed, rows(b.chosen, s.begin, s.end), b.scratch);
    else
      mla_dense(cpu(), out, absorbed, visible(s), b.scratch);
  }
}

/// y = o_proj( heads ); those of absorbed form are W_UV out.
template <class X, class Row>
void Pass<X, Row>::project_heads(const PackedAttention& w) const {
  const Index N = config.num_attention_heads, R = config.kv_lora_rank, U = config.v_head_dim;
  for_each_run(/*expanded=*/false, [&](Index begin, Index end) {
    const View<const float, 2> out = rows(as<2>(b.out, {T, N * R}), begin, end);
    linear_heads(rows(b.heads, begin, end), U, U, narrowed(rows(b.out_x, begin, end), out), R,
                 w.w_kv);
  });
  for_each_run(/*expanded=*/true, [&](Index begin, Index end) {
    narrowed(rows(b.heads, begin, end), rows(as<2>(values(), {T, N * U}), begin, end));
  });
  linear(b.y, b.heads, w.o_proj);
}

template <class X, class Row>
void Pass<X, Row>::attention(Index l) const {
  const PackedAttention& w = layer(l).attention;
  queries(w);
  absorb(w);
  cache_latent(l, w);
  if (is_sparse() && config.indexer->computes[static_cast<std::size_t>(l)]) select(l);
  attend(l);
  project_heads(w);
  tell(l, ".self_attn.o_proj", b.y);
}

template struct Pass<float, float>;
template struct Pass<bf16, bf16>;
template struct Pass<bf16, e4m3>;

}  // namespace dsa::cpu
