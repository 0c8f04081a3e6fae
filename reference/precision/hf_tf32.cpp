#include "reference/precision/hf_tf32.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace dsa::reference {
namespace {

using In = View<const double, 2>;
using Out = View<double, 2>;
using Name = const std::string&;

/// x in units of the last of TF32's 11 significant bits.
struct Scaled {
  double steps;
  int exponent;
};

Scaled scaled(double x) {
  constexpr int significant = 11;
  const int exponent = x == 0 || !std::isfinite(x) ? 0 : std::ilogb(x) - (significant - 1);
  return {std::ldexp(x, -exponent), exponent};
}

/// How one product's inputs lose their lower bits.
class Narrow {
 public:
  Narrow(const Rounding& rounding, const std::string& name) : die_(rounding, name, 200) {
    if (!die_.random()) return;
    const double lot = 3 * die_.uniform_of(-1);
    mode_ = lot < 1 ? Mode::nearest : lot < 2 ? Mode::truncated : Mode::stochastic;
  }

  double operator()(double x, Index i) const {
    const auto [steps, exponent] = scaled(x);
    switch (mode_) {
      case Mode::truncated:
        return std::ldexp(std::trunc(steps), exponent);
      case Mode::stochastic:
        return std::ldexp(std::floor(steps + die_.uniform_of(i)), exponent);
      default:
        return std::ldexp(std::nearbyint(steps), exponent);
    }
  }

 private:
  enum class Mode { nearest, truncated, stochastic };
  Stream die_;
  Mode mode_ = Mode::nearest;
};

template <int Rank>
Tensor<double, Rank> narrowed(const Rounding& rounding, const std::string& name,
                              View<const double, Rank> x) {
  const Narrow narrow(rounding, name);
  Tensor<double, Rank> y(x.shape);
  for (Index i = 0; i < x.size(); ++i) y.data()[i] = narrow(x.data[i], i);
  return y;
}

void linear(const Rounded& run, Name name, Out y, In x, const Linear& w) {
  const Tensor<double, 2> x_seen = narrowed(run.rounding, name + ".x", x);
  const Index rows = w.weight.rows(), columns = w.weight.columns();
  const std::vector<double> stored = read_all<double>(w.weight);
  const Tensor<double, 2> w_seen =
      narrowed(run.rounding, name + ".w", View<const double, 2>{stored.data(), {rows, columns}});
  Linear seen = w;
  seen.weight.dtype = Dtype::f64;
  seen.weight.loaded_as.reset();
  seen.weight.scale_inv = nullptr;
  seen.weight.data = reinterpret_cast<const std::byte*>(w_seen.data());
  run.linear(name, y, x_seen, seen, Dtype::f32);
}

}  // namespace

double round_to_tf32(double x) { return Narrow({}, "")(x, 0); }

Ops<double> hf_tf32_ops(const Rounded& run) {
  Rounded products = run;
  products.narrow_probability = [rounding = run.rounding](Name name) {
    return [narrow = Narrow(rounding, name + ".p")](double p, Index i) { return narrow(p, i); };
  };
  Ops<double> ops = products.ops();
  ops.linear = [=](Name n, Out y, In x, const Linear& w) { linear(run, n, y, x, w); };
  ops.router_logits = ops.index_head_weights = ops.linear;
  ops.indexer_scores = [=](Name name, Out scores, View<const double, 3> q, In k, auto&&... a) {
    run.indexer_scores(name, scores, narrowed(run.rounding, name + ".q", q),
                       narrowed(run.rounding, name + ".k", k), a...);
  };
  ops.mla_expanded = [=](Name name, View<double, 3> out, View<const double, 3> q_nope,
                         View<const double, 3> q_rope, View<const double, 3> kv, In k_rope,
                         auto&&... a) {
    products.mla(name, out, narrowed(run.rounding, name + ".q_nope", q_nope),
                 narrowed(run.rounding, name + ".q_rope", q_rope),
                 narrowed(run.rounding, name + ".kv", kv),
                 narrowed(run.rounding, name + ".k_rope", k_rope), a...);
  };
  return ops;
}

}  // namespace dsa::reference
