#include "reference/model/block_backward.hpp"

namespace dsa::reference {
namespace {

/// The opposite of slice(): parts side by side, head by head. (T, heads * (a + b))
template <class Real>
Tensor<Real, 2> joined(const Tensor<Real, 2>& a, const Tensor<Real, 2>& b, Index heads) {
  const Index T = a.shape()[0], A = a.shape()[1] / heads, B = b.shape()[1] / heads;
  Tensor<Real, 2> both({T, heads * (A + B)});
  for (Index t = 0; t < T; ++t)
    for (Index h = 0; h < heads; ++h) {
      for (Index i = 0; i < A; ++i) both(t, h * (A + B) + i) = a(t, h * A + i);
      for (Index i = 0; i < B; ++i) both(t, h * (A + B) + A + i) = b(t, h * B + i);
    }
  return both;
}

}  // namespace

template <class Real>
void BlockBackward<Real>::linear(const typename BackwardOps<Real>::LinearOp& op,
                                 const std::string& name, View<Real, 2> d_x, View<const Real, 2> x,
                                 const Linear& w, Tensor<Real, 2>& d_y) const {
  traced(name, d_y);
  Tensor<Real, 2> d_weight({w.weight.rows(), w.weight.columns()});
  Tensor<Real, 1> d_bias({w.bias.present() ? w.bias.rows() : 0});
  op(block.at + name, d_x, {d_weight, w.bias.present() ? d_bias.view() : View<Real, 1>{}}, x, w,
     d_y);
  give(name + ".weight", d_weight);
  if (w.bias.present()) give(name + ".bias", d_bias);
}

template <class Real>
void BlockBackward<Real>::rmsnorm(const std::string& name, Tensor<Real, 2>& d_x,
                                  const Tensor<Real, 2>& x, const Parameter& g, double eps,
                                  Tensor<Real, 2>& d_y) const {
  traced(name, d_y);
  Tensor<Real, 1> d_g({g.rows()});
  pass.ops.rmsnorm(block.at + name, d_x, d_g, x, g, d_y, eps);
  give(name + ".weight", d_g);
}

/// forward: the rotary channels of each of the indexer's heads turn, the rest stays.
template <class Real>
void BlockBackward<Real>::unrotate(const std::string& name, Tensor<Real, 2>& d_x,
                                   Index heads) const {
  traced(name, d_x);
  const Indexer& indexer = *block.config.indexer;
  const Index D = indexer.head_dim, P = block.config.qk_rope_head_dim, T = block.T,
              first = indexer.rope_first ? 0 : D - P;
  Tensor<Real, 2> turned = slice(d_x, heads, first, first + P);
  pass.ops.rope(block.at + name, as<3>(turned.view(), {T, heads, P}), block.cos, block.sin,
                indexer.rope_layout);
  for (Index t = 0; t < T; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < P; ++i) d_x(t, h * D + first + i) = turned(t, h * P + i);
}

/// Block::select backwards, from the gradient of the scores.
template <class Real>
void BlockBackward<Real>::indexer(IndexerInputs d, Tensor<Real, 2>& d_scores) const {
  const Indexer& indexer = *block.config.indexer;
  const IndexerWeights& w = block.weights.indexer;
  const Index H = indexer.n_heads, D = indexer.head_dim, T = block.T;
  const std::string name = "self_attn.indexer.";
  const Tensor<Real, 2>& h = run["input_layernorm"];

  traced(name + "scores", d_scores);
  Tensor<Real, 2> d_q({T, H * D}), d_k({T, D}), d_w({T, H});
  pass.ops.indexer_scores(block.at + name + "scores", {as<3>(d_q.view(), {T, H, D}), d_k, d_w},
                          {as<3>(run[name + "q"].view(), {T, H, D}),
                           rows_of(block.cache.k_index, D), run[name + "weights_proj"]},
                          d_scores, indexer, block.visible);
  unrotate(name + "q", d_q, H);
  const bool from_latent = indexer.query_source == Indexer::QuerySource::q_latent;
  linear(pass.ops.linear, name + "wq_b", from_latent ? d.d_c_q : d.d_h,
         from_latent ? run["self_attn.q_a_layernorm"] : h, w.wq_b, d_q);

  unrotate(name + "k", d_k, 1);
  traced(name + "k_norm", d_k);
  const bool has_gain = indexer.key_norm != Indexer::KeyNorm::none,
             has_bias = indexer.key_norm == Indexer::KeyNorm::layer_norm;
  Tensor<Real, 1> d_gain({has_gain ? D : 0}), d_bias({has_bias ? D : 0});
  Tensor<Real, 2> d_raw({T, D});
  pass.ops.index_key_norm(block.at + name + "k_norm", d_raw, {d_gain, d_bias}, run[name + "wk"], w,
                          indexer, d_k);
  if (has_gain) give(name + "k_norm.weight", d_gain);
  if (has_bias) give(name + "k_norm.bias", d_bias);
  linear(pass.ops.linear, name + "wk", d.d_h, h, w.wk, d_raw);
  if (indexer.head_weights == Indexer::HeadWeights::projected)
    linear(pass.ops.index_head_weights, name + "weights_proj", d.d_h, h, w.weights_proj, d_w);
}

template <class Real>
void BlockBackward<Real>::kl(IndexerInputs d, const AttentionParts<Real>& parts) const {
  const KlSemantics& semantics = pass.objective.semantics;
  const KlSetup<Real> setup(run, parts, semantics);
  const auto& computes = block.config.indexer->computes;
  std::vector<Real> weights = pass.objective.kl;
  if (semantics.layers == KlSemantics::Reduction::mean)
    for (Real& w : weights)
      w /= static_cast<Real>(std::count(computes.begin(), computes.end(), true));
  Tensor<Real, 2> d_scores(setup.scores.shape());
  pass.ops.index_kl(block.at + "self_attn.indexer", d_scores, setup.inputs(), weights, semantics);
  indexer(d, d_scores);
}

template <class Real>
Tensor<Real, 2> BlockBackward<Real>::heads(const AttentionParts<Real>& parts,
                                           const Tensor<Real, 2>& d_heads, Tensor<Real, 2>& d_c_kv,
                                           Tensor<Real, 2>& d_k_rope) const {
  const Config& c = block.config;
  const Index N = c.num_attention_heads, B = c.qk_nope_head_dim, P = c.qk_rope_head_dim,
              R = c.kv_lora_rank, U = c.v_head_dim, T = block.T, S = block.visible.keys();
  const Linear& kv_b_proj = block.weights.self_attn.kv_b_proj;
  Tensor<Real, 2> d_q_nope({T, N * B}), d_q_rope({T, N * P});
  const auto d_q_nope3 = as<3>(d_q_nope.view(), {T, N, B}),
             d_q_rope3 = as<3>(d_q_rope.view(), {T, N, P});
  const auto d_out = as<3>(d_heads.view(), {T, N, U});
  const MlaExpandedInputs<Real> in = parts.expanded(c, parts.keys);
  if (block.pass.form == MlaForm::expanded) {
    Tensor<Real, 2> d_kv({S, N * (B + U)});
    pass.ops.mla_expanded(block.at + "self_attn.heads",
                          {d_q_nope3, d_q_rope3, as<3>(d_kv.view(), {S, N, B + U}), d_k_rope}, in,
                          d_out);
    linear(pass.ops.linear, "self_attn.kv_b_proj", d_c_kv, parts.c_kv, kv_b_proj, d_kv);
  } else {
    const std::vector<Real> kv_b = read_all<Real>(kv_b_proj.weight);
    Tensor<Real, 2> d_kv_b({N * (B + U), R});
    pass.ops.mla_absorbed(
        block.at + "self_attn.heads",
        {d_q_nope3, d_q_rope3, d_c_kv, d_k_rope, as<3>(d_kv_b.view(), {N, B + U, R})},
        {in.q_nope,
         in.q_rope,
         parts.c_kv,
         in.k_rope,
         {kv_b.data(), {N, B + U, R}},
         in.chosen,
         in.scale},
        d_out);
    give("self_attn.kv_b_proj.weight", d_kv_b);
  }
  traced("self_attn.q_rope", d_q_rope);
  pass.ops.rope(block.at + "self_attn.q_rope", d_q_rope3, block.cos, block.sin, c.rope_layout);
  return joined(d_q_nope, d_q_rope, N);
}

template <class Real>
void BlockBackward<Real>::queries(Tensor<Real, 2>& d_h, Tensor<Real, 2>& d_c_q,
                                  Tensor<Real, 2>& d_q) const {
  const Attention& w = block.weights.self_attn;
  const Tensor<Real, 2>& h = run["input_layernorm"];
  if (!block.config.q_lora_rank)
    return linear(pass.ops.linear, "self_attn.q_proj", d_h, h, w.q_proj, d_q);
  linear(pass.ops.linear, "self_attn.q_b_proj", d_c_q, run["self_attn.q_a_layernorm"], w.q_b_proj,
         d_q);
  const Tensor<Real, 2>& latent = run["self_attn.q_a_proj"];
  Tensor<Real, 2> d_latent(latent.shape());
  rmsnorm("self_attn.q_a_layernorm", d_latent, latent, w.q_a_layernorm,
          block.config.latent_norm_eps, d_c_q);
  linear(pass.ops.linear, "self_attn.q_a_proj", d_h, h, w.q_a_proj, d_latent);
}

/// Block::attention backwards.
template <class Real>
Tensor<Real, 2> BlockBackward<Real>::attention(Tensor<Real, 2>& d_y) const {
  const Config& c = block.config;
  const Attention& w = block.weights.self_attn;
  const Index T = block.T, S = block.visible.keys(), R = c.kv_lora_rank, P = c.qk_rope_head_dim;
  const Tensor<Real, 2>& h = run["input_layernorm"];
  const AttentionParts<Real> parts(run);
  Tensor<Real, 2> d_h(h.shape()), d_c_q({T, c.q_lora_rank.value_or(0)});
  Tensor<Real, 2> d_heads({T, c.num_attention_heads * c.v_head_dim});

  traced("self_attn", d_y);
  linear(pass.ops.linear, "self_attn.o_proj", d_heads, run["self_attn.heads"], w.o_proj, d_y);
  traced("self_attn.heads", d_heads);
  Tensor<Real, 2> d_c_kv({S, R}), d_k_rope({S, P});
  Tensor<Real, 2> d_q = heads(parts, d_heads, d_c_kv, d_k_rope);

  if (run.site.computes_index && !pass.objective.kl.empty()) {
    const KlSemantics::Detach detach = pass.objective.semantics.detach;
    IndexerInputs reached;
    if (detach != KlSemantics::Detach::inputs) reached.d_h = d_h;
    if (detach == KlSemantics::Detach::nothing) reached.d_c_q = d_c_q;
    kl(reached, parts);
  }

  traced("self_attn.k_rope", d_k_rope);
  pass.ops.rope(block.at + "self_attn.k_rope", as<3>(d_k_rope.view(), {S, 1, P}), block.cos,
                block.sin, c.rope_layout);
  const Tensor<Real, 2> latent = slice(run["self_attn.kv_a_proj_with_mqa"], 1, 0, R);
  Tensor<Real, 2> d_latent(latent.shape());
  rmsnorm("self_attn.kv_a_layernorm", d_latent, latent, w.kv_a_layernorm, c.latent_norm_eps,
          d_c_kv);
  Tensor<Real, 2> d_kv_a = joined(d_latent, d_k_rope, 1);
  linear(pass.ops.linear, "self_attn.kv_a_proj_with_mqa", d_h, h, w.kv_a_proj_with_mqa, d_kv_a);
  queries(d_h, d_c_q, d_q);
  return d_h;
}

template <class Real>
void BlockBackward<Real>::kl_only() const {
  kl({}, AttentionParts<Real>(run));
}

#define DSA_INSTANTIATE(Real)                                                                     \
  template void BlockBackward<Real>::linear(                                                      \
      const BackwardOps<Real>::LinearOp&, const std::string&, View<Real, 2>, View<const Real, 2>, \
      const Linear&, Tensor<Real, 2>&) const;                                                     \
  template void BlockBackward<Real>::rmsnorm(const std::string&, Tensor<Real, 2>&,                \
                                             const Tensor<Real, 2>&, const Parameter&, double,    \
                                             Tensor<Real, 2>&) const;                             \
  template Tensor<Real, 2> BlockBackward<Real>::attention(Tensor<Real, 2>&) const;                \
  template void BlockBackward<Real>::kl_only() const;
DSA_INSTANTIATE(double)
DSA_INSTANTIATE(long double)

}  // namespace dsa::reference
