#include "reference/precision/composed_backward.hpp"

#include <algorithm>
#include <vector>

#include "reference/ops/dot.hpp"

namespace dsa::reference {

/// forward: n = x r,  y = g n,  r = (mean x^2 + eps)^-1/2
/// so:      d_n = g d_y,  d_g += d_y n,  d_r = sum d_n x,  d_x = d_n r - (d_r r^3 / C) x
void ComposedBackward::rmsnorm(Name name, Out d_x, View<double, 1> d_g, In x, const Parameter& g,
                               In d_y, double eps) const {
  const Stream mean(rounding, name, 0), root(rounding, name, 1), normed(rounding, name, 2),
      stored(rounding, name, 3);  // the forward op's own
  const Stream of_n = step(name, 0), of_gain = step(name, 1), of_root = step(name, 2),
               cube = step(name, 3), of_mean = step(name, 4), direct = step(name, 5),
               by_mean = step(name, 6), sum = step(name, 7), over_rows = step(name, 8);
  const Dtype wide = formats.wide, model = formats.model;
  const std::vector<double> gain = read_all<double>(g);
  const Index T = x.shape[0], C = x.shape[1];
  std::vector<RoundedSum> d_gain(static_cast<std::size_t>(C));
  for (Index t = 0; t < T; ++t) {
    const double x2 = dot(x[t].data, x[t].data, C) / static_cast<double>(C);
    const double r = root.round(wide, 1 / std::sqrt(mean.round(wide, x2, t) + eps), t);
    std::vector<double> d_n(static_cast<std::size_t>(C));
    RoundedSum d_r;
    for (Index c = 0; c < C; ++c) {
      const Index i = t * C + c;
      const auto at = static_cast<std::size_t>(c);
      const double n = stored.round(model, normed.round(wide, x(t, c) * r, i), i);
      d_gain[at].add(of_gain.round(model, d_y(t, c) * n, i));
      d_n[at] = of_n.round(model, gain[at] * d_y(t, c), i);
      d_r.add(d_n[at] * x(t, c));
    }
    const double d_mean = of_mean.round(wide,
                                        -d_r.rounded(of_root, wide, wide, t) *
                                            cube.round(wide, r * r * r, t) / static_cast<double>(C),
                                        t);
    for (Index c = 0; c < C; ++c) {
      const Index i = t * C + c;
      d_x(t, c) = sum.round(wide,
                            direct.round(wide, d_n[static_cast<std::size_t>(c)] * r, i) +
                                by_mean.round(wide, d_mean * x(t, c), i),
                            i);
    }
  }
  for (Index c = 0; c < C; ++c)
    d_g(c) = d_gain[static_cast<std::size_t>(c)].rounded(over_rows, wide, model, c);
}

/// The rotation by the opposite angle, with the roundings of a rotation.
void ComposedBackward::rope(Name name, View<double, 3> d_x, In cos, In sin,
                            RopeLayout layout) const {
  Tensor<double, 2> opposite(sin.shape);
  std::transform(sin.begin(), sin.end(), opposite.begin(), [](double s) { return -s; });
  Rounded{formats, rounding}.rope("d." + name, d_x, cos, opposite, layout);
}

/// forward: s = sigmoid(z), or softmax(z)
/// so:      d_z = d_s (1 - s) s, or s (d_s - sum d_s s)
void ComposedBackward::router_scores(Name name, Out d_z, In s, In d_s,
                                     Router::Scoring scoring) const {
  const Stream rest = step(name, 0), product = step(name, 1), last = step(name, 2);
  const Index T = s.shape[0], E = s.shape[1];
  const Dtype wide = formats.wide;
  for (Index t = 0; t < T; ++t) {
    RoundedSum along;
    for (Index e = 0; e < E; ++e) along.add(d_s(t, e) * s(t, e));
    const double mean = along.rounded(product, wide, wide, T * E + t);
    for (Index e = 0; e < E; ++e) {
      const Index i = t * E + e;
      const double factor =
          scoring == Router::Scoring::sigmoid
              ? product.round(wide, d_s(t, e) * rest.round(wide, 1 - s(t, e), i), i)
              : rest.round(wide, d_s(t, e) - mean, i);
      d_z(t, e) = last.round(wide, factor * s(t, e), i);
    }
  }
}

/// forward: w = scale s / D,  D = sum of the chosen s + 1e-20, or 1
/// so:      d = scale d_w,  d_s += d / D - sum d (s / D) / D
void ComposedBackward::router_weights(Name name, Out d_s, In s, View<const Index, 2> experts,
                                      In d_weights, bool normalise, double scale) const {
  const Stream total(rounding, name, 0), quotient(rounding, name, 1);  // the forward op's own
  const Stream scaled = step(name, 0), direct = step(name, 1), share = step(name, 2),
               part = step(name, 3), sum = step(name, 4), last = step(name, 5);
  const Index T = s.shape[0], k = experts.shape[1];
  const Dtype wide = formats.wide;
  for (Index t = 0; t < T; ++t) {
    RoundedSum chosen, along;
    for (Index i = 0; i < k; ++i) chosen.add(s(t, experts(t, i)));
    chosen.value += 1e-20;
    const double divisor = normalise ? chosen.rounded(total, wide, wide, t) : 1;
    std::vector<double> d(static_cast<std::size_t>(k));
    for (Index i = 0; i < k; ++i) {
      const Index at = t * k + i;
      const double d_share = scaled.round(wide, scale * d_weights(t, i), at);
      d[static_cast<std::size_t>(i)] =
          normalise ? direct.round(wide, d_share / divisor, at) : d_share;
      const double of_sum = quotient.round(wide, s(t, experts(t, i)) / divisor, at);
      along.add(part.round(wide, -d_share * share.round(wide, of_sum / divisor, at), at));
    }
    const double by_sum = normalise ? along.rounded(sum, wide, wide, t) : 0;
    for (Index i = 0; i < k; ++i)
      d_s(t, experts(t, i)) = last.round(wide, d[static_cast<std::size_t>(i)] + by_sum, t * k + i);
  }
}

/// forward: a = z sigmoid(z),  h = a u
/// so:      d_u = d_h a,  d_a = d_h u,  d_z = d_a p (1 + z (1 - p)),  p = sigmoid(z)
void ComposedBackward::swiglu(Name name, Out d_gate, Out d_up, In gate, In up, In d_h) const {
  const Stream act(rounding, name, 0);  // the forward op's own
  const Stream of_act = step(name, 0), sigmoid = step(name, 1), rest = step(name, 2),
               slope = step(name, 3), one_more = step(name, 4), product = step(name, 5),
               last = step(name, 6);
  const Dtype wide = formats.wide, model = formats.model;
  for (Index i = 0; i < gate.size(); ++i) {
    const double z = gate.data[i], exact = 1 / (1 + std::exp(-z));
    d_up.data[i] = d_h.data[i] * act.round(model, z * exact, i);
    const double d_a = of_act.round(model, d_h.data[i] * up.data[i], i);
    const double p = sigmoid.round(wide, exact, i);
    const double more = slope.round(wide, z * rest.round(wide, 1 - p, i), i);
    d_gate.data[i] =
        last.round(wide, product.round(wide, d_a * p, i) * one_more.round(wide, 1 + more, i), i);
  }
}

/// forward: y(row) += w x;  so: d_x = w d_y(row),  d_w = d_y(row) . x
void ComposedBackward::accumulate(Name name, AccumulateGradient<double> d, In x,
                                  std::span<const Index> rows, std::span<const double> weights,
                                  In d_y) const {
  const Stream product = step(name, 0), sum = step(name, 1);
  const Index C = d_y.shape[1];
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Index r = static_cast<Index>(i);
    RoundedSum d_weight;
    for (Index c = 0; c < C; ++c) {
      d.d_x(r, c) = weights[i] * d_y(rows[i], c);
      d_weight.add(product.round(formats.wide, x(r, c) * d_y(rows[i], c), r * C + c));
    }
    d.d_weights[i] = d_weight.rounded(sum, formats.wide, formats.wide, r);
  }
}

/// forward: loss += -w l(target),  l = z - m - log sum exp(z - m);  so: d_z = w exp(l) - w [target]
/// l is as long as the logarithm of a probability, and its rounding is that many times exp(l)'s.
void ComposedBackward::cross_entropy(Name name, Out d_z, In z, std::span<const Token> targets,
                                     std::span<const double> weights) const {
  const Stream total = step(name, 0), logarithm = step(name, 1), shifted = step(name, 2),
               log_p = step(name, 3), exponential = step(name, 4), product = step(name, 5),
               last = step(name, 6), share = step(name, 7);
  const Index V = z.shape[1];
  const Dtype wide = formats.wide;
  for (std::size_t row = 0; row < targets.size(); ++row) {
    if (targets[row] < 0 || weights[row] == 0) continue;
    const Index t = static_cast<Index>(row);
    const double w = share.round(wide, weights[row], t);
    const double most = *std::max_element(z[t].begin(), z[t].end());
    RoundedSum sum;
    for (const double logit : z[t]) sum.add(std::exp(logit - most));
    const double log_sum = logarithm.round(wide, std::log(sum.rounded(total, wide, wide, t)), t);
    for (Index c = 0; c < V; ++c) {
      const Index i = t * V + c;
      const double l = log_p.round(wide, shifted.round(wide, z(t, c) - most, i) - log_sum, i);
      const double d = product.round(wide, w * exponential.round(wide, std::exp(l), i), i);
      d_z(t, c) = c == targets[row] ? last.round(wide, d - w, i) : d;
    }
  }
}

}  // namespace dsa::reference
