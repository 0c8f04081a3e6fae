#include "optimized/cuda/model/model.cuh"

#include <algorithm>

#include "core/threads.hpp"
#include "optimized/cuda/device/stream.cuh"
#include "optimized/shared/narrow.hpp"
#include "optimized/shared/pieces.hpp"

namespace dsa::cuda::DSA_PLACE {
namespace {

constexpr Index slab_bytes = Index{64} << 20;  // of floats that the host holds at a time

/// Places parameter after parameter and, over memory, fills each in. Over no memory, whatever the
/// weights, it counts.
class Loader {
 public:
  Loader(std::byte* memory, const Config& config)
      : is_loading_(memory != nullptr), pieces_(memory), config_(config) {}

  Index bytes() const { return pieces_.bytes(); }

  DeviceVector vector(const Parameter& p, Index n, bool present = true) {
    if (!present) return {};
    float* const at = pieces_.take<float>(n);
    fill(at, 0, p, 0, n);
    return {at, {n}};
  }

  /// A whole parameter, (rows, columns).
  template <class T>
  DeviceView<const T, 2> matrix(const Parameter& p, Index rows, Index columns) {
    T* const at = pieces_.take<T>(rows * columns);
    fill(at, 0, p, 0, rows);
    return {at, {rows, columns}};
  }

  template <class X>
  DeviceLinear<X> linear(const Linear& w, Index out, Index in, bool bias = false) {
    return {matrix<X>(w.weight, out, in), vector(w.bias, out, bias)};
  }

  template <class X>
  DeviceMlp<X> mlp(const Mlp& w, Index F) {
    const Index C = config_.hidden_size;
    DeviceMlp<X> mlp;
    X* const gate_up = pieces_.take<X>(2 * F * C);
    fill(gate_up, 0, w.gate_proj.weight, 0, F);
    fill(gate_up, F * C, w.up_proj.weight, 0, F);
    mlp.gate_up.weight = {gate_up, {2 * F, C}};
    if (config_.mlp_bias) {
      float* const bias = pieces_.take<float>(2 * F);
      fill(bias, 0, w.gate_proj.bias, 0, F);
      fill(bias, F, w.up_proj.bias, 0, F);
      mlp.gate_up.bias = {bias, {2 * F}};
    }
    mlp.down = linear<X>(w.down_proj, C, F, config_.mlp_bias);
    return mlp;
  }

  template <class X>
  void experts(DeviceLayer<X>& layer, const std::vector<Mlp>& w) {
    const Index E = config_.n_routed_experts, F = config_.moe_intermediate_size,
                C = config_.hidden_size;
    X* const gate_up = pieces_.take<X>(E * 2 * F * C);
    X* const down = pieces_.take<X>(E * C * F);
    for (Index e = 0; e < E; ++e) {
      const Mlp& expert = w[static_cast<std::size_t>(e)];
      fill(gate_up, 2 * e * F * C, expert.gate_proj.weight, 0, F);
      fill(gate_up, (2 * e + 1) * F * C, expert.up_proj.weight, 0, F);
      fill(down, e * C * F, expert.down_proj.weight, 0, C);
    }
    layer.experts_gate_up = {gate_up, {E, 2 * F, C}};
    layer.experts_down = {down, {E, C, F}};
  }

  /// kv_b_proj: of every head B rows of W_UK and U of W_UV.
  template <class X>
  void cut_heads(DeviceAttention<X>& a, const Parameter& kv_b) {
    const Index N = config_.num_attention_heads, R = config_.kv_lora_rank,
                B = config_.qk_nope_head_dim, U = config_.v_head_dim;
    X* const uk = pieces_.take<X>(N * R * B);
    X* const uv = pieces_.take<X>(N * U * R);
    for (Index n = 0; n < N; ++n) {
      fill_transposed(uk, n * R * B, kv_b, n * (B + U), B);
      fill(uv, n * U * R, kv_b, n * (B + U) + B, n * (B + U) + B + U);
    }
    a.w_uk = {uk, {N, R, B}};
    a.w_uv = {uv, {N, U, R}};
  }

 private:
  /// Rows [begin, end) of a parameter, into to[first_element ...].
  template <class T>
  void fill(T* to, Index first_element, const Parameter& p, Index begin, Index end) {
    if (!is_loading_) return;
    const Index columns = p.columns();
    const Index most = std::max<Index>(1, slab_bytes / (columns * Index{sizeof(float)}));
    for (Index first = begin; first < end; first += most) {
      const Index rows = std::min(most, end - first);
      decode(p, first, rows);
      send(to + first_element + (first - begin) * columns, {wide_.data(), {rows, columns}});
    }
  }

  template <class T>
  void fill_transposed(T* to, Index first_element, const Parameter& p, Index begin, Index rows) {
    if (!is_loading_) return;
    const Index columns = p.columns();
    decode(p, begin, rows);
    Tensor<float, 2> turned({columns, rows});
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < columns; ++c)
        turned(c, r) = wide_[static_cast<std::size_t>(r * columns + c)];
    send(to + first_element, turned.view());
  }

  /// Into wide_, on all threads.
  void decode(const Parameter& p, Index begin, Index rows) {
    const Index columns = p.columns();
    wide_.resize(std::max(wide_.size(), static_cast<std::size_t>(rows * columns)));
    parallel_for(rows, columns, [&](Index r) {
      read_rows(p, begin + r, begin + r + 1, wide_.data() + r * columns);
    });
  }

  void send(float* to, View<const float, 2> x) { upload(Stream{}, to, x.data, x.size()); }
  void send(bf16* to, View<const float, 2> x) {
    narrow_.resize(std::max(narrow_.size(), static_cast<std::size_t>(x.size())));
    narrow_to_bf16({narrow_.data(), static_cast<std::size_t>(x.size())},
                   {x.data, static_cast<std::size_t>(x.size())});
    upload(Stream{}, to, narrow_.data(), x.size());
  }

  bool is_loading_;
  Pieces pieces_;
  const Config& config_;
  std::vector<float> wide_;
  std::vector<bf16> narrow_;
};

template <class X>
DeviceAttention<X> attention(Loader& load, const Config& c, const Attention& w) {
  const Index C = c.hidden_size, N = c.num_attention_heads, R = c.kv_lora_rank,
              P = c.qk_rope_head_dim, q_width = N * (c.qk_nope_head_dim + P);
  DeviceAttention<X> a;
  if (c.q_lora_rank) {
    const Index A = *c.q_lora_rank;
    a.q_a_proj = load.linear<X>(w.q_a_proj, A, C, c.attention_bias);
    a.q_a_layernorm = load.vector(w.q_a_layernorm, A);
    a.q_b_proj = load.linear<X>(w.q_b_proj, q_width, A);
  } else {
    a.q_proj = load.linear<X>(w.q_proj, q_width, C);
  }
  a.kv_a_proj_with_mqa = load.linear<X>(w.kv_a_proj_with_mqa, R + P, C, c.attention_bias);
  a.kv_a_layernorm = load.vector(w.kv_a_layernorm, R);
  load.cut_heads(a, w.kv_b_proj.weight);
  a.o_proj = load.linear<X>(w.o_proj, C, N * c.v_head_dim, c.attention_bias);
  return a;
}

template <class X>
DeviceIndexer<X> indexer(Loader& load, const Config& c, const IndexerWeights& w) {
  const Indexer& i = *c.indexer;
  const bool from_latent = i.query_source == Indexer::QuerySource::q_latent;
  DeviceIndexer<X> d;
  d.wq_b = load.matrix<X>(w.wq_b.weight, i.n_heads * i.head_dim,
                          from_latent ? *c.q_lora_rank : c.hidden_size);
  d.wk = load.matrix<X>(w.wk.weight, i.head_dim, c.hidden_size);
  d.k_norm = load.vector(w.k_norm, i.head_dim, i.key_norm != Indexer::KeyNorm::none);
  d.k_norm_bias =
      load.vector(w.k_norm_bias, i.head_dim, i.key_norm == Indexer::KeyNorm::layer_norm);
  if (i.head_weights == Indexer::HeadWeights::projected)
    d.weights_proj = load.matrix<float>(w.weights_proj.weight, i.n_heads, c.hidden_size);
  return d;
}

template <class X>
DeviceLayer<X> layer(Loader& load, const Config& c, std::size_t l, const Layer& w) {
  const Index C = c.hidden_size, E = c.n_routed_experts;
  DeviceLayer<X> d;
  d.input_layernorm = load.vector(w.input_layernorm, C);
  d.attention = attention<X>(load, c, w.self_attn);
  if (c.indexer && c.indexer->computes[l]) d.indexer = indexer<X>(load, c, w.indexer);
  d.post_attention_layernorm = load.vector(w.post_attention_layernorm, C);
  if (!c.is_moe[l]) {
    d.mlp = load.mlp<X>(w.mlp, c.intermediate_size);
    return d;
  }
  d.gate = load.matrix<float>(w.moe.gate.weight, E, C);
  d.e_score_correction_bias =
      load.vector(w.moe.e_score_correction_bias, E, c.router.has_correction_bias);
  load.experts(d, w.moe.experts);
  if (c.n_shared_experts > 0)
    d.mlp = load.mlp<X>(w.moe.shared_experts, c.n_shared_experts * c.moe_intermediate_size);
  return d;
}

template <class X>
DeviceModel<X> placed(Loader& load, const Config& c, const Weights& w) {
  DeviceModel<X> m;
  m.config = c;
  m.embed_tokens = load.matrix<X>(w.embed_tokens, c.vocab_size, c.hidden_size);
  for (std::size_t l = 0; l < w.layers.size(); ++l)
    m.layers.push_back(layer<X>(load, c, l, w.layers[l]));
  m.norm = load.vector(w.norm, c.hidden_size);
  m.lm_head = c.tie_word_embeddings ? m.embed_tokens
                                    : load.matrix<X>(w.lm_head.weight, c.vocab_size, c.hidden_size);
  return m;
}

}  // namespace

template <class X>
DeviceModel<X> load(const Model& model) {
  Buffer<std::byte> memory(weight_bytes<X>(model.config));
  Loader loader(memory.data(), model.config);
  DeviceModel<X> m = placed<X>(loader, model.config, model.weights);
  m.memory = std::move(memory);
  wait(Stream{});
  return m;
}

template <class X>
Index weight_bytes(const Config& config) {
  Config without_mtp = config;
  without_mtp.num_nextn_predict_layers = 0;
  Loader counter(nullptr, without_mtp);
  placed<X>(counter, without_mtp, empty_weights(without_mtp));
  return counter.bytes();
}

template DeviceModel<float> load(const Model&);
template DeviceModel<bf16> load(const Model&);
template Index weight_bytes<float>(const Config&);
template Index weight_bytes<bf16>(const Config&);

}  // namespace dsa::cuda::DSA_PLACE
