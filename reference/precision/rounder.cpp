#include "reference/precision/rounder.hpp"

#include <algorithm>
#include <vector>

#include "core/threads.hpp"
#include "reference/ops/dot.hpp"
#include "reference/ops/linear.hpp"
#include "reference/ops/mla.hpp"
#include "reference/ops/rope.hpp"

namespace dsa::reference {

std::uint64_t Stream::mix(std::uint64_t seed, const std::string& name, int step) {
  return random_bits(random_bits(seed, seed_of(name)), static_cast<std::uint64_t>(step));
}

void Rounded::round_all(Name name, Out x, Dtype format, int step) const {
  const Stream die(rounding, name, step);
  for (Index i = 0; i < x.size(); ++i) x.data[i] = die.round(format, x.data[i], i);
}

void Rounded::linear(Name name, Out y, In x, const Linear& w, Dtype out) const {
  const Stream die(rounding, name, 0);
  const Index T = x.shape[0], in = x.shape[1], rows = y.shape[1];
  if (!die.random()) {
    reference::linear(y, x, w);
    if (out != formats.wide)
      round_all(name, y, formats.wide, 1);  // the accumulator, then the store
    return round_all(name, y, out, 2);
  }
  Tensor<double, 1> squares({rows});
  reference::linear(y, x, w, squares.view());
  const Stream store(rounding, name, 2);
  parallel_for(T, 20 * rows, [&](Index t) {  // the sum of squared terms is about |x|^2 |w|^2 / n
    const double x2 = dot(x[t].data, x[t].data, in) / static_cast<double>(in);
    for (Index o = 0; o < rows; ++o) {
      const Index i = t * rows + o;
      const double error = die.accumulation(formats.wide, in, x2 * squares(o), y(t, o), i);
      y(t, o) = store.round(out, y(t, o) + error, i);
    }
  });
}

void Rounded::rmsnorm(Name name, Out y, In x, const Parameter& g, double eps) const {
  const Stream mean(rounding, name, 0), root(rounding, name, 1), product(rounding, name, 2),
      stored(rounding, name, 3), scaled(rounding, name, 4);
  const std::vector<double> gain = read_all<double>(g);
  const Index T = x.shape[0], C = x.shape[1];
  for (Index t = 0; t < T; ++t) {
    const double x2 = dot(x[t].data, x[t].data, C) / static_cast<double>(C);
    const double variance = mean.round(formats.wide, x2, t);
    const double r = root.round(formats.wide, 1 / std::sqrt(variance + eps), t);
    for (Index c = 0; c < C; ++c) {
      const Index i = t * C + c;
      const double n = stored.round(formats.model, product.round(formats.wide, x(t, c) * r, i), i);
      y(t, c) = scaled.round(formats.model, gain[static_cast<std::size_t>(c)] * n, i);
    }
  }
}

void Rounded::index_key_norm(Name name, Out y, In x, const IndexerWeights& w,
                             const Indexer& indexer) const {
  if (indexer.key_norm == Indexer::KeyNorm::rms_norm)
    return rmsnorm(name, y, x, w.k_norm, indexer.key_norm_eps);
  if (indexer.key_norm == Indexer::KeyNorm::none) {
    std::copy(x.begin(), x.end(), y.begin());
    return;
  }
  const Stream centre(rounding, name, 0), root(rounding, name, 1), product(rounding, name, 2),
      scaled(rounding, name, 3), shifted(rounding, name, 4), stored(rounding, name, 5);
  const std::vector<double> g = read_all<double>(w.k_norm), b = read_all<double>(w.k_norm_bias);
  const Index T = x.shape[0], D = x.shape[1];
  for (Index t = 0; t < T; ++t) {
    double mean = 0, variance = 0;
    for (Index d = 0; d < D; ++d) mean += x(t, d) / static_cast<double>(D);
    for (Index d = 0; d < D; ++d)
      variance += (x(t, d) - mean) * (x(t, d) - mean) / static_cast<double>(D);
    mean = centre.round(formats.wide, mean, t);
    const double r = root.round(formats.wide, 1 / std::sqrt(variance + indexer.key_norm_eps), t);
    for (Index d = 0; d < D; ++d) {
      const Index i = t * D + d;
      const auto c = static_cast<std::size_t>(d);
      const double n = product.round(formats.wide, (x(t, d) - mean) * r, i);
      const double m =
          shifted.round(formats.wide, scaled.round(formats.wide, n * g[c], i) + b[c], i);
      y(t, d) = stored.round(formats.model, m, i);
    }
  }
}

void Rounded::rope_table(Name name, Out cos, Out sin, std::span<const Index> positions,
                         const Rope& rope) const {
  const Index T = cos.shape[0], half = cos.shape[1];
  const Stream frequency(rounding, name, 0), turn(rounding, name, 1), c(rounding, name, 2),
      s(rounding, name, 3), c_stored(rounding, name, 4), s_stored(rounding, name, 5);
  // HuggingFace's table is itself float32: theta^(2i/P), its inverse, and the blend are rounded.
  std::vector<double> f = rope_frequencies<double>(rope, 2 * half);
  for (Index i = 0; i < half; ++i) {
    double& fi = f[static_cast<std::size_t>(i)];
    for (Index step = 0; step < (rope.yarn ? 4 : 2); ++step)
      fi = frequency.round(formats.wide, fi, 4 * i + step);
  }
  const double factor = rope_attention_factor(rope);
  const Dtype stored = complex_rope ? formats.wide : formats.model;
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < half; ++i) {
      const Index at = t * half + i;
      const double position = static_cast<double>(positions[static_cast<std::size_t>(t)]);
      const double angle = turn.round(formats.wide, position * f[static_cast<std::size_t>(i)], at);
      cos(t, i) = c_stored.round(stored, c.round(formats.wide, std::cos(angle) * factor, at), at);
      sin(t, i) = s_stored.round(stored, s.round(formats.wide, std::sin(angle) * factor, at), at);
    }
}

void Rounded::rope(Name name, View<double, 3> x, In cos, In sin, RopeLayout layout) const {
  const Stream first(rounding, name, 0), second(rounding, name, 1), sum(rounding, name, 2),
      stored(rounding, name, 3);
  const Dtype inner = complex_rope ? formats.wide : formats.model;
  const Index T = x.shape[0], heads = x.shape[1], half = x.shape[2] / 2;
  for (Index t = 0; t < T; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < half; ++i) {
        const bool interleaved = layout == RopeLayout::interleaved;
        const Index ia = interleaved ? 2 * i : i, ib = interleaved ? 2 * i + 1 : i + half;
        const double a = x(t, h, ia), b = x(t, h, ib);
        const Index at = 2 * ((t * heads + h) * half + i);
        const auto turned = [&](double p, double q, Index j) {
          const double y =
              sum.round(inner, first.round(inner, p, j) + second.round(inner, q, j), j);
          return stored.round(formats.model, y, j);
        };
        x(t, h, ia) = turned(a * cos(t, i), -b * sin(t, i), at);
        x(t, h, ib) = turned(b * cos(t, i), a * sin(t, i), at + 1);
      }
}

void Rounded::indexer_scores(Name name, Out scores, View<const double, 3> q, In k, In w,
                             const Indexer& indexer, const Visibility& visible) const {
  const Index T = q.shape[0], H = q.shape[1], D = q.shape[2], S = k.shape[0];
  const Stream product(rounding, name, 0), scaled(rounding, name, 1), weighted(rounding, name, 2),
      sum(rounding, name, 3);
  const bool relu = indexer.activation == Indexer::Activation::relu;
  std::vector<double> k2(static_cast<std::size_t>(S));
  for (Index s = 0; s < S; ++s)
    k2[static_cast<std::size_t>(s)] = dot(k[s].data, k[s].data, D) / static_cast<double>(D);
  parallel_for(T, S * H * (20 + D / 4), [&](Index t) {
    std::fill(scores[t].begin(), scores[t].end(), -std::numeric_limits<double>::infinity());
    std::vector<Index> keys;
    for (Index s = 0; s < S; ++s)
      if (visible.sees(t, s)) keys.push_back(s);
    std::vector<double> y(keys.size()), squares(keys.size());
    for (Index h = 0; h < H; ++h) {
      const double* const mine = q[t][h].data;
      const double q2 = dot(mine, mine, D),
                   weight = weighted.round(formats.wide, w(t, h) * indexer.weight_scale, t * H + h);
      for (std::size_t j = 0; j < keys.size(); ++j) {
        const Index s = keys[j], i = (t * S + s) * H + h;
        double a = dot(mine, k[s].data, D);
        a += product.accumulation(formats.wide, D, q2 * k2[static_cast<std::size_t>(s)], a, i);
        a = scaled.round(formats.wide, round_to_in_line(formats.wide, a) * indexer.dot_scale, i);
        const double term = weight * (relu ? std::max(a, 0.0) : a);
        y[j] += term;
        squares[j] += term * term;
      }
    }
    for (std::size_t j = 0; j < keys.size(); ++j) {
      const Index i = t * S + keys[j];
      const double error = sum.accumulation(formats.wide, H, squares[j], y[j], i);
      scores(t, keys[j]) = sum.round(formats.wide, y[j] + error, i);
    }
  });
}

void Rounded::mla(Name name, View<double, 3> out, View<const double, 3> q_nope,
                  View<const double, 3> q_rope, View<const double, 3> kv, In k_rope,
                  View<const Index, 2> chosen, double scale) const {
  const Index T = q_nope.shape[0], N = q_nope.shape[1], B = q_nope.shape[2], P = q_rope.shape[2],
              S = kv.shape[0], U = out.shape[2], K = chosen.shape[1];
  const Stream product(rounding, name, 0), scaled(rounding, name, 1),
      probability(rounding, name, 2), narrowed(rounding, name, 3), sum(rounding, name, 4);
  const Dtype stored = formats.values == formats.wide ? formats.model : formats.values;
  const auto narrow =
      narrow_probability ? narrow_probability(name) : std::function<double(double, Index)>();
  Tensor<double, 2> k2({S, N});  // |k|^2 / n, for the error of q.k
  parallel_for(S, N * (B + P), [&](Index s) {
    for (Index n = 0; n < N && product.random(); ++n)
      k2(s, n) = (dot(kv[s][n].data, kv[s][n].data, B) + dot(k_rope[s].data, k_rope[s].data, P)) /
                 static_cast<double>(B + P);
  });
  parallel_for(N * T, K * (40 + B + P + U), [&](Index at) {
    const Index n = at / T, t = at % T;
    std::vector<Index> keys;
    for (Index s : chosen[t])
      if (s >= 0) keys.push_back(s);
    const Index n_keys = static_cast<Index>(keys.size());
    std::vector<double> p(keys.size()), o(static_cast<std::size_t>(U)), squares(o.size());
    const double *qn = q_nope[t][n].data, *qr = q_rope[t][n].data;
    const double q2 = dot(qn, qn, B) + dot(qr, qr, P);
    const auto die = [&](std::size_t j) { return (t * N + n) * K + static_cast<Index>(j); };
    for (std::size_t j = 0; j < keys.size(); ++j) {
      double a = dot(qn, kv[keys[j]][n].data, B) + dot(qr, k_rope[keys[j]].data, P);
      a += product.accumulation(formats.wide, B + P, q2 * k2(keys[j], n), a, die(j));
      p[j] = scaled.round(formats.model, product.round(formats.model, a, die(j)) * scale, die(j));
    }
    softmax(p.data(), n_keys);
    for (std::size_t j = 0; j < keys.size(); ++j) {
      p[j] = narrowed.round(formats.model, probability.round(formats.wide, p[j], die(j)), die(j));
      if (narrow) p[j] = narrow(p[j], die(j));
      const double* v = kv[keys[j]][n].data + B;
      for (std::size_t u = 0; u < o.size(); ++u) {
        const double term = p[j] * v[u];
        o[u] += term;
        squares[u] += term * term;
      }
    }
    for (std::size_t u = 0; u < o.size(); ++u) {
      const Index i = (t * N + n) * U + static_cast<Index>(u);
      const double error = sum.accumulation(formats.values, n_keys, squares[u], o[u], i);
      out(t, n, static_cast<Index>(u)) = sum.round(stored, o[u] + error, i);
    }
  });
}

void Rounded::router_scores(Name name, Out s, In z, Router::Scoring scoring) const {
  const Stream stored(rounding, name, 0), exponential(rounding, name, 1), sum(rounding, name, 2),
      shifted(rounding, name, 3);
  const Index T = z.shape[0], E = z.shape[1];
  for (Index t = 0; t < T; ++t) {
    const bool sigmoid = scoring == Router::Scoring::sigmoid;
    const double most = sigmoid ? 0 : *std::max_element(z[t].begin(), z[t].end());
    double total = 0, squares = 0;
    for (Index e = 0; e < E; ++e) {
      const Index i = t * E + e;
      const double exponent = sigmoid ? -z(t, e) : shifted.round(formats.wide, z(t, e) - most, i);
      s(t, e) = exponential.round(formats.wide, std::exp(exponent), i);
      total += s(t, e), squares += s(t, e) * s(t, e);
    }
    total += sum.accumulation(formats.wide, E, squares, total, t);
    for (Index e = 0; e < E; ++e) {
      const Index i = t * E + e;
      const double part = sigmoid ? 1 / sum.round(formats.wide, 1 + s(t, e), i) : s(t, e) / total;
      s(t, e) = stored.round(formats.wide, part, i);
    }
  }
}

void Rounded::router_weights(Name name, Out weights, In s, View<const Index, 2> experts,
                             bool normalise, double scale) const {
  const Stream total(rounding, name, 0), quotient(rounding, name, 1), scaled(rounding, name, 2);
  const Index T = s.shape[0], k = experts.shape[1];
  for (Index t = 0; t < T; ++t) {
    double sum = 1e-20, squares = 0;
    for (Index i = 0; i < k; ++i) {
      sum += s(t, experts(t, i));
      squares += s(t, experts(t, i)) * s(t, experts(t, i));
    }
    sum = total.round(formats.wide, sum + total.accumulation(formats.wide, k, squares, sum, t), t);
    for (Index i = 0; i < k; ++i) {
      const double share = normalise
                               ? quotient.round(formats.wide, s(t, experts(t, i)) / sum, t * k + i)
                               : s(t, experts(t, i));
      weights(t, i) = scaled.round(formats.wide, share * scale, t * k + i);
    }
  }
}

void Rounded::swiglu(Name name, Out h, In gate, In up) const {
  const Stream act(rounding, name, 0), product(rounding, name, 1);
  for (Index i = 0; i < h.size(); ++i) {
    const double z = gate.data[i];
    const double silu = act.round(formats.model, z / (1 + std::exp(-z)), i);
    h.data[i] = product.round(formats.model, silu * up.data[i], i);
  }
}

void Rounded::accumulate(Name name, Out y, In x, std::span<const Index> rows,
                         std::span<const double> weights) const {
  const Stream product(rounding, name, 0), sum(rounding, name, 1);
  const Index C = y.shape[1];
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (Index c = 0; c < C; ++c) {
      const Index at = static_cast<Index>(i) * C + c;
      const double part =
          product.round(formats.model, weights[i] * x(static_cast<Index>(i), c), at);
      y(rows[i], c) = sum.round(formats.model, y(rows[i], c) + part, at);
    }
}

void Rounded::add(Name name, Out y, In x) const {
  const Stream sum(rounding, name, 100);
  for (Index i = 0; i < y.size(); ++i)
    y.data[i] = sum.round(formats.model, y.data[i] + x.data[i], i);
}

Ops<double> Rounded::ops() const {
  Ops<double> ops = definition<double>();
  const Rounded self = *this;
  const auto model = formats.model, wide = formats.wide;
  ops.linear = [=](Name n, Out y, In x, const Linear& w) { self.linear(n, y, x, w, model); };
  ops.rmsnorm = [=](Name n, auto&&... a) { self.rmsnorm(n, a...); };
  ops.index_key_norm = [=](Name n, auto&&... a) { self.index_key_norm(n, a...); };
  ops.index_head_weights = [=](Name n, Out y, In x, const Linear& w) {
    self.linear(n, y, x, w, wide);
  };
  ops.rope_table = [=](Name n, auto&&... a) { self.rope_table(n, a...); };
  ops.rope = [=](Name n, auto&&... a) { self.rope(n, a...); };
  ops.indexer_scores = [=](Name n, auto&&... a) { self.indexer_scores(n, a...); };
  ops.mla_expanded = [=](Name n, auto&&... a) { self.mla(n, a...); };
  ops.mla_absorbed = [](Name n, auto&&...) {
    throw Error(n +
                ": an emulated precision computes MLA in the expanded form, as its original does");
  };
  ops.router_logits = [=](Name n, Out z, In x, const Linear& w) { self.linear(n, z, x, w, wide); };
  ops.router_scores = [=](Name n, auto&&... a) { self.router_scores(n, a...); };
  ops.router_choice = [=, plain = ops.router_choice](Name n, Out y, In s, const Parameter& b) {
    plain(n, y, s, b);
    if (b.present()) self.round_all(n, y, wide, 0);
  };
  ops.router_group_scores = [=, plain = ops.router_group_scores](Name n, Out y, In s,
                                                                 Router::Groups rule) {
    plain(n, y, s, rule);
    self.round_all(n, y, wide, 0);
  };
  ops.router_weights = [=](Name n, auto&&... a) { self.router_weights(n, a...); };
  ops.swiglu = [=](Name n, auto&&... a) { self.swiglu(n, a...); };
  ops.accumulate = [=](Name n, auto&&... a) { self.accumulate(n, a...); };
  ops.add = [=](Name n, auto&&... a) { self.add(n, a...); };
  return ops;
}

}  // namespace dsa::reference
