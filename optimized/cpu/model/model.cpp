#include "optimized/cpu/model/model.hpp"

#include <algorithm>

#include "core/threads.hpp"
#include "optimized/cpu/ops/mla_expanded.hpp"
#include "optimized/cpu/ops/quantise.hpp"

namespace dsa::cpu {
namespace {

Tensor<float, 1> vector_of(const Parameter& p) {
  Tensor<float, 1> x({p.present() ? p.rows() : 0});
  if (p.present()) read_rows(p, 0, p.rows(), x.data());
  return x;
}

Tensor<float, 2> matrix_of(const Parameter& p, Index begin, Index end) {
  Tensor<float, 2> x({end - begin, p.columns()});
  read_rows(p, begin, end, x.data());
  return x;
}

Tensor<float, 2> transposed(View<const float, 2> x) {
  Tensor<float, 2> y({x.shape[1], x.shape[0]});
  for (Index r = 0; r < x.shape[0]; ++r)
    for (Index c = 0; c < x.shape[1]; ++c) y(c, r) = x(r, c);
  return y;
}

/// One after the other; empty if both are.
Tensor<float, 1> joined(const Tensor<float, 1>& a, const Tensor<float, 1>& b) {
  Tensor<float, 1> both({a.size() + b.size()});
  std::copy(b.begin(), b.end(), std::copy(a.begin(), a.end(), both.begin()));
  return both;
}

/// f(0) ... f(n-1) on all threads.
template <class F>
void in_parallel(Index n, F&& f) {
  parallel_for(n, shared_loop_ns, [&](Index i) { f(static_cast<std::size_t>(i)); });
}

struct Packer {
  const Config& config;
  Format format;
  Cpu cpu;

  Matrix matrix(const Parameter& p) const {
    return Matrix(cpu, p, 0, p.rows(), matrix_dtype(format));
  }

  Matrix matrix_f32(const Parameter& p) const { return Matrix(cpu, p, 0, p.rows(), Dtype::f32); }

  /// Rows [begin, end) of W x + b.
  PackedLinear linear(const Linear& w, Index begin, Index end) const {
    PackedLinear packed{Matrix(cpu, w.weight, begin, end, matrix_dtype(format)), {}};
    if (!w.bias.present()) return packed;
    packed.bias = Tensor<float, 1>({end - begin});
    read_rows(w.bias, begin, end, packed.bias.data());
    return packed;
  }

  PackedLinear linear(const Linear& w) const { return linear(w, 0, w.weight.rows()); }

  FeedForward feed_forward(const Mlp& w) const {
    return {Matrix(cpu, w.gate_proj.weight, w.up_proj.weight, matrix_dtype(format)),
            matrix(w.down_proj.weight)};
  }

  FeedForward mlp(const Mlp& w) const {
    FeedForward packed = feed_forward(w);
    packed.gate_up_bias = joined(vector_of(w.gate_proj.bias), vector_of(w.up_proj.bias));
    packed.down_bias = vector_of(w.down_proj.bias);
    return packed;
  }

  void embedding(const Parameter& p, Tensor<float, 2>& table) const {
    table = matrix_of(p, 0, p.rows());
  }
  void embedding(const Parameter& p, Tensor<bf16, 2>& table) const {
    constexpr Index rows = 256;
    table = Tensor<bf16, 2>({p.rows(), p.columns()});
    in_parallel((p.rows() + rows - 1) / rows, [&](std::size_t i) {
      const Index begin = static_cast<Index>(i) * rows, end = std::min(begin + rows, p.rows());
      to_bf16(cpu, {table.view()[begin].data, {end - begin, p.columns()}},
              matrix_of(p, begin, end));
    });
  }

  PackedAttention attention(const Attention& w) const {
    const Index N = config.num_attention_heads, R = config.kv_lora_rank,
                P = config.qk_rope_head_dim, B = config.qk_nope_head_dim, U = config.v_head_dim;
    PackedAttention packed;
    if (config.q_lora_rank) {
      packed.q_a_proj = linear(w.q_a_proj);
      packed.q_a_layernorm = vector_of(w.q_a_layernorm);
      packed.q_b_proj = linear(w.q_b_proj);
    } else {
      packed.q_proj = linear(w.q_proj);
    }
    packed.kv_a_latent = linear(w.kv_a_proj_with_mqa, 0, R);
    packed.kv_a_rope = linear(w.kv_a_proj_with_mqa, R, R + P);
    packed.kv_a_layernorm = vector_of(w.kv_a_layernorm);
    packed.w_uk.resize(static_cast<std::size_t>(N));
    packed.w_kv.resize(static_cast<std::size_t>(N));
    const Parameter& kv_b = w.kv_b_proj.weight;
    in_parallel(N, [&](std::size_t n) {
      const Index first = static_cast<Index>(n) * (B + U);
      const Tensor<float, 2> both = matrix_of(kv_b, first, first + B + U);
      packed.w_uk[n] =
          Matrix(cpu, transposed({both.data(), {B, kv_b.columns()}}), matrix_dtype(format));
      packed.w_kv[n] = expansion_of(cpu, both, B, matrix_dtype(format));
    });
    packed.o_proj = linear(w.o_proj);
    return packed;
  }

  PackedIndexer indexer(const IndexerWeights& w) const {
    PackedIndexer packed{
        linear(w.wq_b), linear(w.wk), {}, vector_of(w.k_norm), vector_of(w.k_norm_bias)};
    if (w.weights_proj.weight.present()) packed.weights_proj = matrix_f32(w.weights_proj.weight);
    return packed;
  }

  PackedLayer layer(const Layer& w, bool computes_index, bool is_moe) const {
    PackedLayer packed;
    packed.input_layernorm = vector_of(w.input_layernorm);
    packed.post_attention_layernorm = vector_of(w.post_attention_layernorm);
    packed.attention = attention(w.self_attn);
    if (computes_index) packed.indexer = indexer(w.indexer);
    if (!is_moe) {
      packed.mlp = mlp(w.mlp);
      return packed;
    }
    packed.gate = matrix_f32(w.moe.gate.weight);
    packed.e_score_correction_bias = vector_of(w.moe.e_score_correction_bias);
    if (config.n_shared_experts > 0) packed.mlp = mlp(w.moe.shared_experts);
    packed.experts.resize(w.moe.experts.size());
    in_parallel(static_cast<Index>(w.moe.experts.size()),
                [&](std::size_t e) { packed.experts[e] = feed_forward(w.moe.experts[e]); });
    return packed;
  }
};

/// Every matrix of the model.
template <class F>
void for_each_matrix(const PackedModel& m, F&& f) {
  f(m.lm_head);
  for (const PackedLayer& layer : m.layers) {
    const PackedAttention& a = layer.attention;
    for (const PackedLinear* w : {&a.q_proj, &a.q_a_proj, &a.q_b_proj, &a.kv_a_latent, &a.kv_a_rope,
                                  &a.o_proj, &layer.indexer.wq_b, &layer.indexer.wk})
      f(w->weight);
    for (const Matrix& w : a.w_uk) f(w);
    for (const Matrix& w : a.w_kv) f(w);
    f(layer.indexer.weights_proj);
    f(layer.gate);
    f(layer.mlp.gate_up);
    f(layer.mlp.down);
    for (const FeedForward& expert : layer.experts) f(expert.gate_up), f(expert.down);
  }
}

bool stays_f32(const std::string& name) {
  return name.ends_with("weights_proj.weight") || name.ends_with("mlp.gate.weight");
}

}  // namespace

Index PackedModel::bytes() const {
  Index total = 0;
  for_each_matrix(*this, [&](const Matrix& w) { total += w.bytes(); });
  std::visit([&](const auto& table) { total += table.size() * Index{sizeof *table.data()}; },
             embed_tokens);
  return total;
}

PackedModel pack(const Model& model, Format format, Cpu cpu, MlaForm mla) {
  const Config& config = model.config;
  const Packer packer{config, format, cpu};
  PackedModel packed{.config = config,
                     .format = format,
                     .cpu = cpu,
                     .mla = mla,
                     .embed_tokens = {},
                     .layers = {},
                     .norm = {},
                     .lm_head = {}};
  if (format != Format::fp32) packed.embed_tokens = Tensor<bf16, 2>();
  // A packed matrix need not stay in memory twice.
  const auto release = [&] {
    for (const auto& file : model.files) file->release();
  };
  std::visit([&](auto& table) { packer.embedding(model.weights.embed_tokens, table); },
             packed.embed_tokens);
  release();
  for (std::size_t l = 0; l < model.weights.layers.size(); ++l) {
    packed.layers.push_back(packer.layer(
        model.weights.layers[l], config.indexer && config.indexer->computes[l], config.is_moe[l]));
    release();
  }
  packed.norm = vector_of(model.weights.norm);
  packed.lm_head = packer.matrix(model.weights.lm_head.weight);
  release();
  return packed;
}

Index weight_bytes(const Config& config, Format format) {
  Config without_mtp = config;
  without_mtp.num_nextn_predict_layers = 0;
  without_mtp.tie_word_embeddings = false;  // the head is packed whether stored or not
  const Weights weights = empty_weights(without_mtp);
  Index bytes = 0;
  for_each_tensor(weights, without_mtp,
                  [&](const std::string& name, const Parameter&, const std::vector<Index>& shape) {
                    if (shape.size() < 2) return;
                    const Dtype dtype = stays_f32(name) ? Dtype::f32 : matrix_dtype(format);
                    bytes += shape[0] * shape[1] * bits_of(dtype) / 8;
                    if (name.ends_with("kv_b_proj.weight"))  // W_UK is packed twice
                      bytes += config.num_attention_heads * config.qk_nope_head_dim * shape[1] *
                               bits_of(dtype) / 8;
                  });
  return bytes;
}

}  // namespace dsa::cpu
