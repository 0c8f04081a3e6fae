#include <algorithm>

#include "core/threads.hpp"
#include "core/views.hpp"
#include "optimized/cpu/ops/rope.hpp"
#include "optimized/train/model/block.hpp"
#include "optimized/train/model/selectors.hpp"

namespace dsa::train {
namespace {

/// k of every head beside the rotary key that all heads share; v behind it.
void split_heads(const Activations& a, Index B, Index P, Index U) {
  const Index T = a.k.shape[0], N = a.k.shape[1];
  parallel_for(T, N * (B + P + U) / 8, [&](Index t) {
    for (Index n = 0; n < N; ++n) {
      const float* const from = a.kv.data + (t * N + n) * (B + U);
      float* const k = a.k.data + (t * N + n) * (B + P);
      std::copy_n(from, B, k);
      std::copy_n(a.k_rope.data + t * P, P, k + B);
      std::copy_n(from + B, U, a.v.data + (t * N + n) * U);
    }
  });
}

}  // namespace

/// q = q_b_proj( norm( q_a_proj h ) ), or q_proj h; the last P channels of every head turned.
void Block::queries() const {
  const Config& c = pass.config;
  const auto& self = w.self_attn;
  if (c.q_lora_rank) {
    linear(pass, a.q_a, a.h, self.q_a_proj);
    rmsnorm(pass, a.c_q, a.q_a, self.q_a_layernorm, c.latent_norm_eps);
    linear(pass, flat(a.q), a.c_q, self.q_b_proj);
  } else {
    linear(pass, flat(a.q), a.h, self.q_proj);
  }
  cpu::rope(pass.cpu, a.q, pass.cos, pass.sin, c.qk_nope_head_dim, c.rope_layout);
}

/// [k_nope | v] = kv_b_proj( norm( latent ) ),  [latent | k_rope] = kv_a_proj_with_mqa h
void Block::keys() const {
  const Config& c = pass.config;
  const Index R = c.kv_lora_rank, P = c.qk_rope_head_dim;
  linear(pass, a.kv_a, a.h, w.self_attn.kv_a_proj_with_mqa);
  copy_columns(a.latent, 0, a.kv_a, 0, R);
  copy_columns(a.k_rope, 0, a.kv_a, R, P);
  rmsnorm(pass, a.c_kv, a.latent, w.self_attn.kv_a_layernorm, c.latent_norm_eps);
  cpu::rope(pass.cpu, as<3>(a.k_rope, {rows(), 1, P}), pass.cos, pass.sin, 0, c.rope_layout);
  linear(pass, a.kv, a.c_kv, w.self_attn.kv_b_proj);
  split_heads(a, c.qk_nope_head_dim, P, c.v_head_dim);
}

void Block::make_heads(View<const float, 2> x) const {
  rmsnorm(pass, a.h, x, w.input_layernorm, pass.config.rms_norm_eps);
  queries();
  keys();
}

void Block::attend_heads(View<const float, 2> x) const {
  if (attended() == KeySet::chosen)
    cpu::heads_attention(pass.cpu, {kept.heads, kept.lse}, heads_in(), chosen, pass.memory);
  else
    cpu::heads_attention(pass.cpu, {kept.heads, kept.lse}, heads_in(), pass.memory);
  copy(kept.mid, x);
  linear(pass, kept.mid, flat<const float>(kept.heads), w.self_attn.o_proj, true);
}

View<const float, 2> Block::lse_over(KeySet over) const {
  if (over == attended()) return kept.lse;
  const Index T = rows(), N = pass.config.num_attention_heads;
  cpu::HeadsIn in = heads_in();
  in.v = {nullptr, {T, N, 0}};
  const cpu::HeadsOut out{{nullptr, {T, N, 0}}, a.teacher_lse};
  if (over == KeySet::chosen)
    cpu::heads_attention(pass.cpu, out, in, chosen, pass.memory);
  else
    cpu::heads_attention(pass.cpu, out, in, pass.memory);
  return a.teacher_lse;
}

void Block::select() const {
  switch (pass.objective.selector) {
    case Selector::indexer:
      return cpu::index_topk(pass.cpu, kept.chosen, index_in(), pass.memory);
    case Selector::recent:
      return choose_recent(kept.chosen, pass.begin);
    case Selector::random:
      return choose_random(kept.chosen, pass.begin, 0);
    case Selector::oracle:
      return choose_oracle(kept.chosen, heads_in());
  }
}

void Block::attend(View<const float, 2> x) const {
  make_heads(x);
  if (computes_index && (pass.needs_selection() || pass.has_kl() || pass.for_recall)) {
    index_projections();
    if (pass.needs_selection()) select();
  }
  attend_heads(x);
}

void Block::attend_again(View<const float, 2> x) const {
  make_heads(x);
  if (computes_index && pass.has_kl() && !pass.kl_ends()) index_projections();
}

}  // namespace dsa::train
