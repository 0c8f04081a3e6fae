#include "reference/model/block_backward.hpp"

namespace dsa::reference {
namespace {

/// A constant to the loss: no Real but Dual has anything to lose.
template <class Real>
Tensor<Real, 2> constant(Tensor<Real, 2> x) {
  for (Real& value : x) value = detached(value);
  return x;
}

}  // namespace

template <class Real>
Rerun<Real>::Rerun(const Pass<Real>& pass, const Site& s, const Sequence& tokens,
                   const Angles<Real>& angles, const Tensor<Real, 2>& input,
                   Tensor<Index, 2> shared)
    : pass_{pass.model, pass.ops, recording(pass.tap), pass.form},
      site(s),
      sequence(tokens),
      block{pass_,         pass.model.config, site.weights, site.at,
            tokens.size(), angles.cos,        angles.sin,   Visibility{0, sequence.documents},
            cache_},
      x(input),
      chosen(std::move(shared)),
      mid(input) {
  block.attend(mid, site.computes_index, chosen);
}

template <class Real>
Tap<Real> Rerun<Real>::recording(const Tap<Real>& told) {
  Tap<Real> tap;
  tap.tensor = [this, told](const std::string& name, View<Real, 2> value) {
    if (told.tensor) told.tensor(name, value);
    if (name.find(".mlp.") != std::string::npos && !name.ends_with(".gate.logits")) return;
    Tensor<Real, 2> copy(value.shape);
    std::copy(value.begin(), value.end(), copy.begin());
    seen_[name] = std::move(copy);
  };
  tap.decision = [this, told](const std::string& name, View<const Real, 2> scores,
                              View<Index, 2> choice) {
    if (told.decision) told.decision(name, scores, choice);
    Tensor<Index, 2> copy(choice.shape);
    std::copy(choice.begin(), choice.end(), copy.begin());
    decided_[name] = std::move(copy);
  };
  return tap;
}

template <class Real>
const Tensor<Real, 2>& Rerun<Real>::operator[](const std::string& name) const {
  return seen_.at(block.at + name);
}

template <class Real>
const Tensor<Index, 2>& Rerun<Real>::decided(const std::string& name) const {
  return decided_.at(block.at + name);
}

template <class Real>
Tensor<Index, 2> Rerun<Real>::attended() const {
  const bool sparse = block.config.indexer && block.config.use_sparse_attention;
  return sparse ? chosen : block.all_visible();
}

template <class Real>
Tensor<Index, 2> Rerun<Real>::keys(KlSemantics::Keys set) const {
  return set == KlSemantics::Keys::chosen ? chosen : block.all_visible();
}

template <class Real>
AttentionParts<Real>::AttentionParts(const Rerun<Real>& run) : keys(run.attended()) {
  const Config& c = run.block.config;
  const Index N = c.num_attention_heads, B = c.qk_nope_head_dim, P = c.qk_rope_head_dim,
              S = run.block.visible.keys();
  q_nope = slice(run[c.q_lora_rank ? "self_attn.q_b_proj" : "self_attn.q_proj"], N, 0, B);
  q_rope = run["self_attn.q_rope"];
  const LayerCache<Real>& cache = run.block.cache;  // what the heads read: after rounding, if any
  c_kv = Tensor<Real, 2>({S, c.kv_lora_rank});
  std::copy(cache.c_kv.begin(), cache.c_kv.end(), c_kv.begin());
  k_rope = Tensor<Real, 2>({S, P});
  std::copy(cache.k_rope.begin(), cache.k_rope.end(), k_rope.begin());
  if (run.has("self_attn.kv_b_proj")) {
    kv = run["self_attn.kv_b_proj"];
  } else {
    kv = Tensor<Real, 2>({S, run.site.weights.self_attn.kv_b_proj.weight.rows()});
    run.block.pass.ops.linear(run.block.at + "self_attn.kv_b_proj", kv, c_kv,
                              run.site.weights.self_attn.kv_b_proj);
  }
}

template <class Real>
MlaExpandedInputs<Real> AttentionParts<Real>::expanded(const Config& c,
                                                       View<const Index, 2> over) const {
  const Index N = c.num_attention_heads, B = c.qk_nope_head_dim, P = c.qk_rope_head_dim,
              U = c.v_head_dim, T = q_nope.shape()[0], S = k_rope.shape()[0];
  return {as<3>(q_nope.view(), {T, N, B}),
          as<3>(q_rope.view(), {T, N, P}),
          as<3>(kv.view(), {S, N, B + U}),
          k_rope,
          over,
          c.attention_scale()};
}

template <class Real>
KlSetup<Real>::KlSetup(const Rerun<Real>& run, const AttentionParts<Real>& parts,
                       const KlSemantics& semantics)
    : u({run.block.T, run.block.visible.keys()}),
      scores(run["self_attn.indexer.scores"]),
      keys(run.keys(semantics.student_keys)) {
  const Config& config = run.block.config;
  const Tensor<Index, 2> softmax_keys = run.keys(semantics.teacher_softmax);
  run.block.pass.ops.attention_mass(run.block.at + "self_attn.indexer", u,
                                    parts.expanded(config, softmax_keys),
                                    run.keys(semantics.teacher_keys));
  u = constant(std::move(u));
  if (!semantics.student_scaled)
    scale = static_cast<Real>(1 / (config.indexer->dot_scale * config.indexer->weight_scale));
  if constexpr (std::is_same_v<Real, Dual>) {  // the same scores, without what is detached
    if (semantics.detach == KlSemantics::Detach::nothing) return;
    const bool all = semantics.detach == KlSemantics::Detach::inputs;
    const Tensor<Real, 2>& h = run["input_layernorm"];
    const Tensor<Real, 2> c_q =
        config.q_lora_rank ? constant(run["self_attn.q_a_layernorm"]) : Tensor<Real, 2>();
    run.block.cache.k_index.clear();
    run.block.select(all ? constant(h) : h, c_q);
    scores = run["self_attn.indexer.scores"];
  }
}

template <class Real>
Tensor<Real, 2> router_scores_of(const Rerun<Real>& run) {
  const Tensor<Real, 2>& z = run["mlp.gate.logits"];
  Tensor<Real, 2> s(z.shape());
  run.block.pass.ops.router_scores(run.block.at + "mlp.gate.scores", s, z,
                                   run.block.config.router.scoring);
  return s;
}

#define DSA_INSTANTIATE(Real)           \
  template class Rerun<Real>;           \
  template struct AttentionParts<Real>; \
  template struct KlSetup<Real>;        \
  template Tensor<Real, 2> router_scores_of(const Rerun<Real>&);
DSA_INSTANTIATE(double)
DSA_INSTANTIATE(long double)
DSA_INSTANTIATE(Dual)

}  // namespace dsa::reference
