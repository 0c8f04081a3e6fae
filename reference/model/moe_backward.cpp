#include "reference/model/block_backward.hpp"

namespace dsa::reference {
namespace {

template <class Real>
Tensor<Real, 2> rows_at(const Tensor<Real, 2>& x, const std::vector<Index>& rows) {
  const Index C = x.shape()[1];
  Tensor<Real, 2> mine({static_cast<Index>(rows.size()), C});
  for (std::size_t i = 0; i < rows.size(); ++i)
    std::copy_n(x.view()[rows[i]].data, C, mine.view()[static_cast<Index>(i)].data);
  return mine;
}

}  // namespace

/// forward: y = down( h ),  h = silu(gate x) * up x
template <class Real>
void BlockBackward<Real>::feed_forward(const std::string& name, Tensor<Real, 2>& d_x,
                                       const Tensor<Real, 2>& x, const Mlp& w,
                                       Tensor<Real, 2>& d_y) const {
  const Tensor<Real, 2> gate = block.linear(name + ".gate_proj", x, w.gate_proj);
  const Tensor<Real, 2> up = block.linear(name + ".up_proj", x, w.up_proj);
  Tensor<Real, 2> h(gate.shape()), d_h(gate.shape()), d_gate(gate.shape()), d_up(gate.shape());
  block.pass.ops.swiglu(block.at + name + ".act_fn", h, gate, up);
  linear(pass.ops.linear, name + ".down_proj", d_h, h, w.down_proj, d_y);
  traced(name + ".act_fn", d_h);
  pass.ops.swiglu(block.at + name + ".act_fn", d_gate, d_up, gate, up, d_h);
  linear(pass.ops.linear, name + ".up_proj", d_x, x, w.up_proj, d_up);
  linear(pass.ops.linear, name + ".gate_proj", d_x, x, w.gate_proj, d_gate);
}

/// Block::route backwards. The choice of experts is a constant; their weights are not.
template <class Real>
void BlockBackward<Real>::router(Tensor<Real, 2>& d_x, const Tensor<Real, 2>& x,
                                 const Routing<Real>& routing, Tensor<Real, 2>& d_weights) const {
  const Config& config = block.config;
  const std::string gate = "mlp.gate.";
  const Tensor<Real, 2> s = router_scores_of(run);
  Tensor<Real, 2> d_s(s.shape()), d_z(s.shape());
  traced(gate + "weights", d_weights);
  pass.ops.router_weights(block.at + gate + "weights", d_s, s, routing.experts, d_weights,
                          config.router.norm_topk_prob, config.routed_scaling_factor);
  if (pass.objective.balance != 0)
    pass.ops.balance_loss(block.at + "mlp.gate", d_s, {s, routing.experts, run.sequence.documents},
                          pass.objective.balance);
  traced(gate + "scores", d_s);
  pass.ops.router_scores(block.at + gate + "scores", d_z, s, d_s, config.router.scoring);
  traced(gate + "logits", d_z);
  Tensor<Real, 2> d_weight({config.n_routed_experts, config.hidden_size});
  pass.ops.router_logits(block.at + gate + "logits", d_x, {d_weight, {}}, x, block.weights.moe.gate,
                         d_z);
  give("mlp.gate.weight", d_weight);
}

/// The tokens that chose expert e, through it and back.
template <class Real>
void BlockBackward<Real>::expert(Index e, Tensor<Real, 2>& d_x, const Tensor<Real, 2>& x,
                                 const Routing<Real>& routing, Tensor<Real, 2>& d_weights,
                                 const Tensor<Real, 2>& d_y) const {
  const Mlp& w = block.weights.moe.experts[static_cast<std::size_t>(e)];
  const std::string name = "mlp.experts." + std::to_string(e);
  std::vector<Index> rows, slots;
  std::vector<Real> mixing;
  for (Index t = 0; t < block.T; ++t)
    for (Index i = 0; i < block.config.num_experts_per_tok; ++i)
      if (routing.experts(t, i) == e) {
        rows.push_back(t), slots.push_back(i);
        mixing.push_back(routing.weights(t, i));
      }
  if (rows.empty()) return;

  const Tensor<Real, 2> mine = rows_at(x, rows), answers = block.feed_forward(name, mine, w);
  Tensor<Real, 2> d_answers(answers.shape()), d_mine(mine.shape());
  std::vector<Real> d_mixing(rows.size());
  pass.ops.accumulate(block.at + name, {d_answers, d_mixing}, answers, rows, mixing, d_y);
  feed_forward(name, d_mine, mine, w, d_answers);
  for (std::size_t i = 0; i < rows.size(); ++i) d_weights(rows[i], slots[i]) += d_mixing[i];
  const std::vector<Real> ones(rows.size(), Real(1));
  accumulate<Real>(d_x, d_mine, rows, ones);
}

/// Block::moe backwards.
template <class Real>
Tensor<Real, 2> BlockBackward<Real>::moe(const Tensor<Real, 2>& x, Tensor<Real, 2>& d_y) const {
  const Routing<Real> routing = block.route(x);
  Tensor<Real, 2> d_x(x.shape()), d_weights(routing.weights.shape());
  if (block.config.n_shared_experts > 0) {
    Tensor<Real, 2> d_shared(d_y.shape());
    pass.ops.add(block.at + "mlp", d_shared, d_y);
    traced("mlp.shared_experts", d_shared);
    feed_forward("mlp.shared_experts", d_x, x, block.weights.moe.shared_experts, d_shared);
  }
  traced("mlp.experts", d_y);
  for (Index e = 0; e < block.config.n_routed_experts; ++e)
    expert(e, d_x, x, routing, d_weights, d_y);
  router(d_x, x, routing, d_weights);
  return d_x;
}

/// Block::run backwards: x + attention( norm x ), then x + ffn( norm x ).
template <class Real>
void BlockBackward<Real>::layer(Tensor<Real, 2>& d_x) const {
  const double eps = block.config.rms_norm_eps;
  const Layer& w = block.weights;
  if (pass.tap) pass.tap(block.name(), d_x);
  const Tensor<Real, 2> g =
      block.rmsnorm("post_attention_layernorm", run.mid, w.post_attention_layernorm, eps);
  Tensor<Real, 2> d_mlp(d_x.shape());
  pass.ops.add(block.name(), d_mlp, d_x);
  traced("mlp", d_mlp);
  Tensor<Real, 2> d_g(g.shape());
  if (run.site.is_moe)
    d_g = moe(g, d_mlp);
  else
    feed_forward("mlp", d_g, g, w.mlp, d_mlp);
  rmsnorm("post_attention_layernorm", d_x, run.mid, w.post_attention_layernorm, eps, d_g);

  traced("attention_residual", d_x);
  Tensor<Real, 2> d_attention(d_x.shape());
  pass.ops.add(block.at + "attention_residual", d_attention, d_x);
  Tensor<Real, 2> d_h = attention(d_attention);
  rmsnorm("input_layernorm", d_x, run.x, w.input_layernorm, eps, d_h);
}

template void BlockBackward<double>::layer(Tensor<double, 2>&) const;
template void BlockBackward<long double>::layer(Tensor<long double, 2>&) const;

}  // namespace dsa::reference
