#include <algorithm>

#include "optimized/cpu/ops/router.hpp"
#include "optimized/cpu/ops/router_backward.hpp"
#include "optimized/train/model/block.hpp"

namespace dsa::train {

View<const float, 1> Block::correction_bias() const {
  const Slot& bias = w.moe.e_score_correction_bias;
  return bias.present() ? bias.vector() : View<const float, 1>{};
}

/// The places of tokens among the experts, as the last routing was.
cpu::ExpertRows Block::sorted() const { return {a.pair, a.row, expert_begin}; }

void Block::feed(View<float, 2> y) const {
  rmsnorm(pass, a.g, kept.mid, w.post_attention_layernorm, pass.config.rms_norm_eps);
  copy(y, kept.mid);
  if (is_moe)
    moe(y);
  else
    feed_forward(pass, a, y, a.g, OneNetwork(w.mlp, rows()), true);
}

/// Every expert sees the tokens that chose it; the shared experts see all of them.
void Block::moe(View<float, 2> y) const {
  const Config& c = pass.config;
  linear(pass, a.logits, a.g, w.moe.gate);
  cpu::router(pass.cpu, {kept.experts, kept.mixing}, a.logits, correction_bias(), c,
              pass.memory.threads(cpu::router_scratch(c)));
  cpu::sort_by_expert(sorted(), kept.experts);
  cpu::gather_rows(pass.cpu, a.sorted, a.g, sorted());
  feed_forward(pass, a, a.answers, a.sorted, experts(), false);
  cpu::add_rows(pass.cpu, y, a.answers, kept.mixing, sorted());
  if (c.n_shared_experts > 0)
    feed_forward(pass, a, y, a.g, OneNetwork(w.moe.shared_experts, rows()), true);
}

double Block::balance() const {
  cpu::router_scores(pass.cpu, a.s, a.logits, pass.config.router.scoring);
  return cpu::balance_loss(pass.cpu, {}, {a.s, kept.experts, pass.begin}, 0, pass.memory);
}

/// The choice of experts is a constant; their weights are not.
void Block::router_backward() const {
  const Config& c = pass.config;
  linear(pass, a.logits, a.g, w.moe.gate);
  cpu::router_scores(pass.cpu, a.s, a.logits, c.router.scoring);
  cpu::router_weights_backward(pass.cpu, a.d_s, a.s, kept.experts, a.d_mixing, c);
  if (pass.objective.balance != 0)
    cpu::balance_loss(pass.cpu, a.d_s, {a.s, kept.experts, pass.begin}, pass.objective.balance,
                      pass.memory);
  cpu::router_scores_backward(pass.cpu, a.d_s, a.s, c.router.scoring);
  linear_backward(pass, a.d_g, a.g, w.moe.gate, a.d_s, true);
}

void Block::moe_backward(View<const float, 2> d_y) const {
  cpu::sort_by_expert(sorted(), kept.experts);
  if (pass.config.n_shared_experts > 0)
    feed_forward_backward(pass, a, a.d_g, a.g, OneNetwork(w.moe.shared_experts, rows()), d_y,
                          false);
  else
    fill_zero(a.d_g);
  cpu::gather_rows(pass.cpu, a.sorted, a.g, sorted());
  cpu::gather_rows(pass.cpu, a.answers, d_y, sorted());
  feed_forward_backward(pass, a, a.d_sorted, a.sorted, experts(), a.answers, false,
                        [&](View<float, 2> hidden, View<float, 2> d_hidden) {
                          cpu::mixing_backward(pass.cpu, a.d_mixing, hidden, d_hidden, kept.mixing,
                                               sorted());
                        });
  cpu::add_rows(pass.cpu, a.d_g, a.d_sorted, {}, sorted());
  router_backward();
}

}  // namespace dsa::train
