#include <algorithm>

#include "core/threads.hpp"
#include "core/views.hpp"
#include "optimized/cpu/ops/rope.hpp"
#include "optimized/train/model/block.hpp"

namespace dsa::train {
namespace {

/// forward: k = [k_nope | k_rope], v;  kv = [k_nope | v];  all heads share k_rope
/// so:      d_kv = [d_k_nope | d_v],   d_k_rope = sum_n d_k's last P channels
void join_heads(const Activations& a, Index B, Index P, Index U) {
  const Index T = a.k.shape[0], N = a.k.shape[1];
  parallel_for(T, N * (B + P + U) / 8, [&](Index t) {
    float* const d_k_rope = a.d_all_k_rope.data + t * P;
    std::fill_n(d_k_rope, P, 0.0f);
    for (Index n = 0; n < N; ++n) {
      const float* const d_k = a.d_k.data + (t * N + n) * (B + P);
      float* const to = a.d_kv.data + (t * N + n) * (B + U);
      std::copy_n(d_k, B, to);
      std::copy_n(a.d_v.data + (t * N + n) * U, U, to + B);
      for (Index i = 0; i < P; ++i) d_k_rope[i] += d_k[B + i];
    }
  });
}

}  // namespace

/// From a.d_heads to a.d_q, a.d_kv and a.d_all_k_rope.
void Block::heads_backward() const {
  const Config& c = pass.config;
  for_runs_back([&](const Run& run, bool is_last) {
    const View<float, 3> d_k = is_last ? a.d_k : a.d_k_of_run, d_v = is_last ? a.d_v : a.d_v_of_run;
    const cpu::HeadsGradient d{own(a.d_q, run), seen(d_k, run), seen(d_v, run)};
    const cpu::HeadsResult made{own(a.d_heads, run), own(kept.heads, run), own(kept.lse, run)};
    if (attended() == KeySet::chosen)
      cpu::heads_attention_backward(pass.cpu, d, heads_in(run), made, own(chosen, run),
                                    pass.memory);
    else
      cpu::heads_attention_backward(pass.cpu, d, heads_in(run), made, pass.memory);
    join_run(flat(a.d_k), flat(d_k), run, is_last);
    join_run(flat(a.d_v), flat(d_v), run, is_last);
  });
  join_heads(a, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim);
}

void Block::keys_backward() const {
  const Config& c = pass.config;
  const auto& self = w.self_attn;
  const Index R = c.kv_lora_rank, P = c.qk_rope_head_dim;
  linear_backward(pass, a.d_all_c_kv, a.all_c_kv, self.kv_b_proj, a.d_kv);
  pass.context.add_up({a.d_all_c_kv, a.d_all_k_rope});
  take_own(a.d_c_kv, a.d_all_c_kv);
  take_own(a.d_k_rope, a.d_all_k_rope);
  rmsnorm_backward(pass, a.d_latent, a.latent, self.kv_a_layernorm, c.latent_norm_eps, a.d_c_kv);
  cpu::rope_backward(pass.cpu, as<3>(a.d_k_rope, {rows(), 1, P}), pass.cos, pass.sin, 0,
                     c.rope_layout);
  copy_columns(a.d_kv_a, 0, a.d_latent, 0, R);
  copy_columns(a.d_kv_a, R, a.d_k_rope, 0, P);
  linear_backward(pass, a.d_h, a.h, self.kv_a_proj_with_mqa, a.d_kv_a, true);
}

void Block::queries_backward() const {
  const Config& c = pass.config;
  const auto& self = w.self_attn;
  cpu::rope_backward(pass.cpu, a.d_q, pass.cos, pass.sin, c.qk_nope_head_dim, c.rope_layout);
  const View<const float, 2> d_q = flat<const float>(a.d_q);
  if (!c.q_lora_rank) return linear_backward(pass, a.d_h, a.h, self.q_proj, d_q, true);
  linear_backward(pass, a.d_c_q, a.c_q, self.q_b_proj, d_q, true);
  rmsnorm_backward(pass, a.d_q_a, a.q_a, self.q_a_layernorm, c.latent_norm_eps, a.d_c_q);
  linear_backward(pass, a.d_h, a.h, self.q_a_proj, a.d_q_a, true);
}

double Block::attention_backward(View<const float, 2> d_y) const {
  fill_zero(a.d_h);
  fill_zero(a.d_c_q);
  const bool kl_flows = computes_index && pass.has_kl() && !pass.kl_ends();
  const double loss = kl_flows ? indexer_loss(true) : 0;
  linear_backward(pass, flat(a.d_heads), flat<const float>(kept.heads), w.self_attn.o_proj, d_y);
  heads_backward();
  keys_backward();
  queries_backward();
  return loss;
}

/// forward: mid = x + attention( norm x ),  y = mid + ffn( norm mid )
double Block::backward(View<float, 2> d_x, View<const float, 2> x) const {
  const double eps = pass.config.rms_norm_eps;
  rmsnorm(pass, a.g, kept.mid, w.post_attention_layernorm, eps);
  if (is_moe)
    moe_backward(d_x);
  else
    feed_forward_backward(pass, a, a.d_g, a.g, OneNetwork(w.mlp, rows()), d_x, false);
  rmsnorm_backward(pass, d_x, kept.mid, w.post_attention_layernorm, eps, a.d_g, true);
  const double loss = attention_backward(d_x);
  rmsnorm_backward(pass, d_x, x, w.input_layernorm, eps, a.d_h, true);
  return loss;
}

}  // namespace dsa::train
