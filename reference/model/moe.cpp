#include "core/trace_names.hpp"
#include "reference/model/block.hpp"
#include "reference/ops/router.hpp"

namespace dsa::reference {

/// SwiGLU: down( silu(gate x) * up x ).
template <class Real>
Tensor<Real, 2> Block<Real>::feed_forward(const std::string& name, const Tensor<Real, 2>& x,
                                          const Mlp& w) const {
  Tensor<Real, 2> h({x.shape()[0], w.gate_proj.weight.rows()});
  const Tensor<Real, 2> gate = linear(name + names::gate_proj, x, w.gate_proj);
  const Tensor<Real, 2> up = linear(name + names::up_proj, x, w.up_proj);
  pass.ops.swiglu(at + name + names::act_fn, h, gate, up);
  return linear(name + names::down_proj, h, w.down_proj);
}

template <class Real>
Routing<Real> Block<Real>::route(const Tensor<Real, 2>& x) const {
  const Index E = config.n_routed_experts, k = config.num_experts_per_tok;
  Tensor<Real, 2> z({T, E}), s({T, E}), choice({T, E}), mixing({T, k});
  Tensor<Index, 2> experts({T, k}), groups({T, config.topk_group});
  pass.ops.router_logits(at + names::gate_logits, z, x, weights.moe.gate);
  z = tapped(at + names::gate_logits, std::move(z));
  pass.ops.router_scores(at + names::gate_scores, s, z, config.router.scoring);
  pass.ops.router_choice(at + names::gate_choice, choice, s, weights.moe.e_score_correction_bias);
  choice = tapped(at + names::gate_choice, std::move(choice));
  if (config.router.groups != Router::Groups::none) {
    Tensor<Real, 2> group_scores({T, config.n_group});
    pass.ops.router_group_scores(at + names::gate_group_scores, group_scores, choice,
                                 config.router.groups);
    decide(at + names::gate_groups, tapped(at + names::gate_group_scores, std::move(group_scores)),
           groups);
    router_drop_groups<Real>(choice, groups, config.n_group, config.router.dropped_group_score);
  }
  decide(at + names::gate_experts, choice, experts);
  pass.ops.router_weights(at + names::gate_weights, mixing, s, experts,
                          config.router.norm_topk_prob, config.routed_scaling_factor);
  return {std::move(experts), tapped(at + names::gate_weights, std::move(mixing))};
}

/// Every expert sees the tokens that chose it; the shared experts see all of them.
template <class Real>
Tensor<Real, 2> Block<Real>::moe(const Tensor<Real, 2>& x) const {
  const Routing<Real> routing = route(x);
  const Index C = config.hidden_size, E = config.n_routed_experts;
  Tensor<Real, 2> y({T, C});
  for (Index e = 0; e < E; ++e) {
    std::vector<Index> rows;
    std::vector<Real> mixing;
    for (Index t = 0; t < T; ++t)
      for (Index i = 0; i < config.num_experts_per_tok; ++i)
        if (routing.experts(t, i) == e) rows.push_back(t), mixing.push_back(routing.weights(t, i));
    if (rows.empty()) continue;
    Tensor<Real, 2> mine({static_cast<Index>(rows.size()), C});
    for (std::size_t i = 0; i < rows.size(); ++i)
      std::copy_n(x.view()[rows[i]].data, C, mine.view()[static_cast<Index>(i)].data);
    const std::string name = std::string(names::experts) + "." + std::to_string(e);
    pass.ops.accumulate(at + name, y,
                        feed_forward(name, mine, weights.moe.experts[static_cast<std::size_t>(e)]),
                        rows, mixing);
  }
  y = tapped(at + names::experts, std::move(y));
  if (config.n_shared_experts > 0)
    pass.ops.add(at + names::mlp, y,
                 tapped(at + names::shared_experts,
                        feed_forward(names::shared_experts, x, weights.moe.shared_experts)));
  return y;
}

template struct Block<double>;
template struct Block<long double>;
template struct Block<Dual>;

}  // namespace dsa::reference
