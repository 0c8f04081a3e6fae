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
      std::copy_n(a.all_k_rope.data + t * P, P, k + B);
      std::copy_n(from + B, U, a.v.data + (t * N + n) * U);
    }
  });
}

}  // namespace

void Block::put_own(View<float, 2> all, View<const float, 2> mine) const {
  if (!pass.context.is_divided()) return;
  for (const Run& run : pass.context.runs())
    copy(dsa::rows(all, run.begin, run.end), own(mine, run));
}

void Block::take_own(View<float, 2> mine, View<const float, 2> all) const {
  if (!pass.context.is_divided()) return;
  for (const Run& run : pass.context.runs())
    copy(own(mine, run), dsa::rows(all, run.begin, run.end));
}

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
  put_own(a.all_c_kv, a.c_kv);
  put_own(a.all_k_rope, a.k_rope);
  pass.context.gather({a.all_c_kv, a.all_k_rope});
  linear(pass, a.kv, a.all_c_kv, w.self_attn.kv_b_proj);
  split_heads(a, c.qk_nope_head_dim, P, c.v_head_dim);
}

void Block::make_heads(View<const float, 2> x) const {
  rmsnorm(pass, a.h, x, w.input_layernorm, pass.config.rms_norm_eps);
  queries();
  keys();
}

void Block::attend_heads(View<const float, 2> x) const {
  for (const Run& run : pass.context.runs()) {
    const cpu::HeadsOut out{own(kept.heads, run), own(kept.lse, run)};
    if (attended() == KeySet::chosen)
      cpu::heads_attention(pass.cpu, out, heads_in(run), own(chosen, run), pass.memory);
    else
      cpu::heads_attention(pass.cpu, out, heads_in(run), pass.memory);
  }
  copy(kept.mid, x);
  linear(pass, kept.mid, flat<const float>(kept.heads), w.self_attn.o_proj, true);
}

View<const float, 2> Block::lse_over(KeySet over) const {
  if (over == attended()) return kept.lse;
  const Index N = pass.config.num_attention_heads;
  for (const Run& run : pass.context.runs()) {
    cpu::HeadsIn in = heads_in(run);
    in.v = {nullptr, {run.end, N, 0}};
    const cpu::HeadsOut out{{nullptr, {run.size(), N, 0}}, own(a.teacher_lse, run)};
    if (over == KeySet::chosen)
      cpu::heads_attention(pass.cpu, out, in, own(chosen, run), pass.memory);
    else
      cpu::heads_attention(pass.cpu, out, in, pass.memory);
  }
  return a.teacher_lse;
}

/// Only the indexer's own selection is made where rows are divided.
void Block::select() const {
  const Run& run = pass.context.runs().front();
  switch (pass.objective.selector) {
    case Selector::indexer:
      for (const Run& one : pass.context.runs())
        cpu::index_topk(pass.cpu, own(kept.chosen, one), index_in(one), pass.memory);
      return;
    case Selector::recent:
      return choose_recent(kept.chosen, pass.begin);
    case Selector::random:
      return choose_random(kept.chosen, pass.begin, 0);
    case Selector::oracle:
      return choose_oracle(kept.chosen, heads_in(run));
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
