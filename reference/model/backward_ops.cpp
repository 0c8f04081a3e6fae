#include "reference/model/backward_ops.hpp"

#include "reference/ops/embed.hpp"
#include "reference/ops/rope.hpp"
#include "reference/ops/router.hpp"
#include "reference/ops/swiglu.hpp"

namespace dsa::reference {
namespace {

template <class Real>
View<const Real, 1> vector(const std::vector<Real>& x) {
  return {x.data(), {static_cast<Index>(x.size())}};
}

template <class Real>
void index_key_norm_backward(View<Real, 2> d_x, LayernormGradient<Real> d, View<const Real, 2> x,
                             const IndexerWeights& w, const Indexer& indexer,
                             View<const Real, 2> d_y) {
  if (indexer.key_norm == Indexer::KeyNorm::none) return add_backward<Real>(d_x, d_y);
  const std::vector<Real> g = read_all<Real>(w.k_norm);
  if (indexer.key_norm == Indexer::KeyNorm::layer_norm)
    return layernorm_backward<Real>(d_x, d, x, vector(g), d_y, indexer.key_norm_eps);
  rmsnorm_backward<Real>(d_x, d.d_g, x, vector(g), d_y, indexer.key_norm_eps);
}

}  // namespace

template <class Real>
BackwardOps<Real> backward_definition() {
  using Name = const std::string&;
  using In = View<const Real, 2>;
  using Out = View<Real, 2>;
  const auto linear = [](Name, auto&&... a) { linear_backward<Real>(a...); };
  BackwardOps<Real> ops;
  ops.embed = [](Name, auto&&... a) { embed_backward<Real>(a...); };
  ops.linear = ops.index_head_weights = ops.router_logits = linear;
  ops.rmsnorm = [](Name, Out d_x, View<Real, 1> d_g, In x, const Parameter& g, In d_y, double eps) {
    const std::vector<Real> gain = read_all<Real>(g);
    rmsnorm_backward<Real>(d_x, d_g, x, vector(gain), d_y, eps);
  };
  ops.index_key_norm = [](Name, auto&&... a) { index_key_norm_backward<Real>(a...); };
  ops.rope = [](Name, auto&&... a) { rope_backward<Real>(a...); };
  ops.indexer_scores = [](Name, auto&&... a) { indexer_scores_backward<Real>(a...); };
  ops.mla_expanded = [](Name, auto&&... a) { mla_expanded_backward<Real>(a...); };
  ops.mla_absorbed = [](Name, auto&&... a) { mla_absorbed_backward<Real>(a...); };
  ops.router_scores = [](Name, auto&&... a) { router_scores_backward<Real>(a...); };
  ops.router_weights = [](Name, auto&&... a) { router_weights_backward<Real>(a...); };
  ops.swiglu = [](Name, auto&&... a) { swiglu_backward<Real>(a...); };
  ops.accumulate = [](Name, auto&&... a) { accumulate_backward<Real>(a...); };
  ops.add = [](Name, auto&&... a) { add_backward<Real>(a...); };
  ops.cross_entropy = [](Name, auto&&... a) { cross_entropy_backward<Real>(a...); };
  ops.index_kl = [](Name, auto&&... a) { index_kl_backward<Real>(a...); };
  ops.balance_loss = [](Name, auto&&... a) { balance_loss_backward<Real>(a...); };
  return ops;
}
template BackwardOps<double> backward_definition();
template BackwardOps<long double> backward_definition();

}  // namespace dsa::reference
