#include "reference/model/ops.hpp"

#include "reference/dual.hpp"
#include "reference/ops/accumulate.hpp"
#include "reference/ops/embed.hpp"
#include "reference/ops/indexer_scores.hpp"
#include "reference/ops/linear.hpp"
#include "reference/ops/mla.hpp"
#include "reference/ops/norms.hpp"
#include "reference/ops/rope.hpp"
#include "reference/ops/router.hpp"
#include "reference/ops/swiglu.hpp"
#include "reference/ops/topk_select.hpp"

namespace dsa::reference {
namespace {

template <class Real>
struct Vector : std::vector<Real> {
  explicit Vector(const Parameter& p) : std::vector<Real>(read_all<Real>(p)) {}
  operator View<const Real, 1>() const {
    return {this->data(), {static_cast<Index>(this->size())}};
  }
};

template <class Real>
void index_key_norm(View<Real, 2> y, View<const Real, 2> x, const IndexerWeights& w,
                    const Indexer& indexer) {
  switch (indexer.key_norm) {
    case Indexer::KeyNorm::layer_norm:
      return layernorm<Real>(y, x, Vector<Real>(w.k_norm), Vector<Real>(w.k_norm_bias),
                             indexer.key_norm_eps);
    case Indexer::KeyNorm::rms_norm:
      return rmsnorm<Real>(y, x, Vector<Real>(w.k_norm), indexer.key_norm_eps);
    case Indexer::KeyNorm::none:
      std::copy(x.begin(), x.end(), y.begin());
  }
}

template <class Real>
void absorbed(View<Real, 3> out, View<const Real, 3> q_nope, View<const Real, 3> q_rope,
              View<const Real, 2> c_kv, View<const Real, 2> k_rope, const Linear& kv_b_proj,
              View<const Index, 2> chosen, double scale) {
  const std::vector<Real> w = read_all<Real>(kv_b_proj.weight);
  const Index N = q_nope.shape[1], R = c_kv.shape[1], rows = kv_b_proj.weight.rows();
  mla_absorbed<Real>(out, q_nope, q_rope, c_kv, k_rope,
                     View<const Real, 3>{w.data(), {N, rows / N, R}}, chosen, scale);
}

template <class Real>
void choice(View<Real, 2> y, View<const Real, 2> s, const Parameter& bias) {
  std::copy(s.begin(), s.end(), y.begin());
  if (!bias.present()) return;
  const std::vector<Real> b = read_all<Real>(bias);
  for (Index t = 0; t < s.shape[0]; ++t)
    for (Index e = 0; e < s.shape[1]; ++e) y(t, e) += b[static_cast<std::size_t>(e)];
}

}  // namespace

template <class Real>
Ops<Real> definition() {
  using Name = const std::string&;
  using In = View<const Real, 2>;
  using Out = View<Real, 2>;
  Ops<Real> ops;
  ops.embed = [](Name, auto&&... a) { embed<Real>(a...); };
  ops.linear = [](Name, Out y, In x, const Linear& w) { linear<Real>(y, x, w); };
  ops.rmsnorm = [](Name, Out y, In x, const Parameter& g, double eps) {
    rmsnorm<Real>(y, x, Vector<Real>(g), eps);
  };
  ops.index_key_norm = [](Name, auto&&... a) { index_key_norm<Real>(a...); };
  ops.index_head_weights = [](Name, Out w, In x, const Linear& p) { linear<Real>(w, x, p); };
  ops.rope_table = [](Name, auto&&... a) { rope_table<Real>(a...); };
  ops.rope = [](Name, auto&&... a) { rope<Real>(a...); };
  ops.cache = [](Name, Out) {};
  ops.indexer_scores = [](Name, auto&&... a) { indexer_scores<Real>(a...); };
  ops.topk_select = [](Name, View<Index, 2> chosen, In s) { topk_select<Real>(chosen, s); };
  ops.mla_expanded = [](Name, auto&&... a) { mla_expanded<Real>(a...); };
  ops.mla_absorbed = [](Name, auto&&... a) { absorbed<Real>(a...); };
  ops.router_logits = [](Name, Out z, In x, const Linear& gate) { linear<Real>(z, x, gate); };
  ops.router_scores = [](Name, auto&&... a) { router_scores<Real>(a...); };
  ops.router_choice = [](Name, auto&&... a) { choice<Real>(a...); };
  ops.router_group_scores = [](Name, auto&&... a) { router_group_scores<Real>(a...); };
  ops.router_weights = [](Name, auto&&... a) { router_weights<Real>(a...); };
  ops.swiglu = [](Name, auto&&... a) { swiglu<Real>(a...); };
  ops.accumulate = [](Name, auto&&... a) { accumulate<Real>(a...); };
  ops.add = [](Name, Out y, In x) { add<Real>(y, x); };
  ops.cross_entropy = [](Name, auto&&... a) { return cross_entropy<Real>(a...); };
  ops.attention_mass = [](Name, auto&&... a) { attention_mass<Real>(a...); };
  ops.index_kl = [](Name, auto&&... a) { return index_kl<Real>(a...); };
  ops.balance_loss = [](Name, auto&&... a) { return balance_loss<Real>(a...); };
  return ops;
}
template Ops<double> definition();
template Ops<long double> definition();
template Ops<Dual> definition();

}  // namespace dsa::reference
