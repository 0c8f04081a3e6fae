#include "reference/precision/rounder_backward.hpp"

#include <algorithm>
#include <vector>

#include "core/threads.hpp"
#include "reference/ops/dot.hpp"
#include "reference/ops/mla_keys.hpp"
#include "reference/precision/composed_backward.hpp"

namespace dsa::reference {
namespace {

using Name = const std::string&;
using In = View<const double, 2>;
using Out = View<double, 2>;

/// A sum of `terms` products: its value, and that of the squared products.
template <int Rank>
struct Sums {
  Tensor<double, Rank> value, squares;
  explicit Sums(Shape<Rank> shape) : value(shape), squares(shape) {}
};

/// sum += a row, its squares beside it.
void add_row(double* value, double* squares, double a, const double* row, Index n) {
  for (Index i = 0; i < n; ++i) {
    const double term = a * row[i];
    value[i] += term;
    squares[i] += term * term;
  }
}

struct RoundedBackward {
  Formats formats;
  Rounding rounding;

  /// y += part, both rounded: what autograd stores, and where it meets what is there already.
  void add(Name name, int step, double* y, const double* part, Index n, Dtype format) const {
    const Stream stored(rounding, name, 1000 + step), met(rounding, name, 2000 + step);
    for (Index i = 0; i < n; ++i) {
      const double rounded = stored.round(format, part[i], i);
      y[i] = y[i] == 0 ? rounded : met.round(format, y[i] + rounded, i);
    }
  }

  /// The same of sums of `terms` products, with the error of their accumulator.
  template <int Rank>
  void add(Name name, int step, View<double, Rank> y, Sums<Rank>& sums, Index terms,
           Dtype format) const {
    const Stream die(rounding, name, 3000 + step);
    for (Index i = 0; i < y.size() && die.random(); ++i) {
      double& value = sums.value.data()[i];
      value += die.accumulation(formats.wide, terms, sums.squares.data()[i], value, i);
    }
    add(name, step, y.data, sums.value.data(), y.size(), format);
  }

  /// d_x in `format`, d_W in `kept`. The sum of squared terms is about |a|^2 |b|^2 / terms.
  void linear(Name name, Out d_x, LinearGradient<double> d, In x, const Linear& w, In d_y,
              Dtype format, Dtype kept) const {
    const Index T = x.shape[0], in = x.shape[1], out = d_y.shape[1];
    Sums<2> of_x({d_x.data ? T : 0, in}), of_w({d.d_weight.data ? out : 0, in});
    Tensor<double, 1> of_b({d.d_bias.data ? out : 0});
    linear_backward<double>(d_x.data ? of_x.value.view() : Out{},
                            {d.d_weight.data ? of_w.value.view() : Out{},
                             d.d_bias.data ? of_b.view() : View<double, 1>{}},
                            x, w, d_y);
    std::vector<double> x2(static_cast<std::size_t>(in)), w2(x2.size()),
        row2(static_cast<std::size_t>(T)), column2(static_cast<std::size_t>(out));
    for (Index t = 0; t < T; ++t)
      for (Index o = 0; o < out; ++o) {
        row2[static_cast<std::size_t>(t)] += d_y(t, o) * d_y(t, o);
        column2[static_cast<std::size_t>(o)] += d_y(t, o) * d_y(t, o);
      }
    for (Index t = 0; t < T; ++t)
      for (Index i = 0; i < in; ++i) x2[static_cast<std::size_t>(i)] += x(t, i) * x(t, i);
    const std::vector<double> matrix = read_all<double>(w.weight);
    for (Index o = 0; o < out; ++o)
      for (Index i = 0; i < in; ++i) {
        const double value = matrix[static_cast<std::size_t>(o * in + i)];
        w2[static_cast<std::size_t>(i)] += value * value;
      }
    const auto outer = [&](Tensor<double, 2>& squares, const std::vector<double>& rows,
                           const std::vector<double>& columns, Index terms) {
      for (Index r = 0; r < squares.shape()[0]; ++r)
        for (Index c = 0; c < squares.shape()[1]; ++c)
          squares(r, c) = rows[static_cast<std::size_t>(r)] * columns[static_cast<std::size_t>(c)] /
                          static_cast<double>(terms);
    };
    outer(of_x.squares, row2, w2, out);
    outer(of_w.squares, column2, x2, T);
    if (d_x.data) add(name, 0, d_x, of_x, out, format);
    if (d.d_weight.data) add(name, 1, d.d_weight, of_w, T, kept);
    if (d.d_bias.data) add(name, 2, d.d_bias.data, of_b.data(), out, kept);
  }

  void mla(Name name, const MlaExpandedGradient<double>& d, const MlaExpandedInputs<double>& in,
           View<const double, 3> d_out) const {
    const Index T = in.q_nope.shape[0], N = in.q_nope.shape[1], B = in.q_nope.shape[2],
                P = in.q_rope.shape[2], S = in.kv.shape[0], U = d_out.shape[2],
                K = in.chosen.shape[1];
    const Stream dot_product(rounding, name, 0), scores(rounding, name, 1),
        probability(rounding, name, 2), narrowed(rounding, name, 3);  // the forward op's own
    const Stream product(rounding, name, 200), inner(rounding, name, 201),
        difference(rounding, name, 202), by_p(rounding, name, 203), passed(rounding, name, 204),
        scaled(rounding, name, 205);
    const Dtype wide = formats.wide, model = formats.model;
    Sums<3> q_nope({T, N, B}), q_rope({T, N, P}), kv({S, N, B + U}), k_rope({N, S, P});
    parallel_for(N, T * K * (60 + 2 * (B + P + U)), [&](Index n) {
      for (Index t = 0; t < T; ++t) {
        const std::vector<Index> keys = keys_of(in.chosen[t]);
        std::vector<double> p(keys.size()), d_p(keys.size());
        const auto at = [&](std::size_t j) { return (t * N + n) * K + static_cast<Index>(j); };
        for (std::size_t j = 0; j < keys.size(); ++j) {
          const double *k = in.kv[keys[j]][n].data, *k_rotated = in.k_rope[keys[j]].data;
          const double *q = in.q_nope[t][n].data, *q_rotated = in.q_rope[t][n].data;
          RoundedSum score, sum;
          for (Index b = 0; b < B; ++b) score.add(q[b] * k[b]);
          for (Index r = 0; r < P; ++r) score.add(q_rotated[r] * k_rotated[r]);
          for (Index u = 0; u < U; ++u) sum.add(d_out(t, n, u) * k[B + u]);
          p[j] =
              scores.round(model, in.scale * score.rounded(dot_product, wide, model, at(j)), at(j));
          d_p[j] = sum.rounded(product, wide, model, at(j));
        }
        softmax(p.data(), static_cast<Index>(p.size()));
        RoundedSum of_row;
        for (std::size_t j = 0; j < keys.size(); ++j) {
          p[j] = probability.round(wide, p[j], at(j));
          of_row.add(p[j] * d_p[j]);
        }
        const double delta = of_row.rounded(inner, wide, wide, t * N + n);
        for (std::size_t j = 0; j < keys.size(); ++j) {
          const Index s = keys[j];
          const double rest = difference.round(wide, d_p[j] - delta, at(j));
          const double d_score = passed.round(model, by_p.round(wide, p[j] * rest, at(j)), at(j));
          const double d_z = scaled.round(model, in.scale * d_score, at(j));
          const double weight = narrowed.round(model, p[j], at(j));
          add_row(&q_nope.value(t, n, 0), &q_nope.squares(t, n, 0), d_z, in.kv[s][n].data, B);
          add_row(&q_rope.value(t, n, 0), &q_rope.squares(t, n, 0), d_z, in.k_rope[s].data, P);
          add_row(&kv.value(s, n, 0), &kv.squares(s, n, 0), d_z, in.q_nope[t][n].data, B);
          add_row(&kv.value(s, n, B), &kv.squares(s, n, B), weight, d_out[t][n].data, U);
          add_row(&k_rope.value(n, s, 0), &k_rope.squares(n, s, 0), d_z, in.q_rope[t][n].data, P);
        }
      }
    });
    add(name, 0, d.d_q_nope, q_nope, K, formats.model);
    add(name, 1, d.d_q_rope, q_rope, K, formats.model);
    add(name, 2, d.d_kv, kv, T, formats.model);
    Tensor<double, 3> of_heads({N, S, P});  // each head's copy of the key, rounded; then their sum
    add<3>(name, 3, of_heads, k_rope, T, formats.model);
    Sums<2> shared({S, P});
    for (Index n = 0; n < N; ++n)
      add_row(shared.value.data(), shared.squares.data(), 1, of_heads.view()[n].data, S * P);
    add(name, 4, d.d_k_rope, shared, N, formats.model);
  }

  void indexer_scores(Name name, IndexerScoresGradient<double> d,
                      const IndexerScoresInputs<double>& in, In d_scores, const Indexer& indexer,
                      const Visibility& visible) const {
    const Index T = in.q.shape[0], H = in.q.shape[1], D = in.q.shape[2], S = in.k.shape[0];
    const Stream stored(rounding, name, 0), product(rounding, name, 1);
    const bool relu = indexer.activation == Indexer::Activation::relu;
    Sums<3> q({T, H, D});
    Sums<2> k({S, D}), w({T, H});
    for (Index t = 0; t < T; ++t)
      for (Index s = 0; s < S; ++s) {
        if (!visible.sees(t, s) || d_scores(t, s) == 0) continue;
        const double of_score = stored.round(formats.wide, d_scores(t, s), t * S + s);
        for (Index h = 0; h < H; ++h) {
          const Index at = (t * S + s) * H + h;
          double a = indexer.dot_scale * dot(in.q[t][h].data, in.k[s].data, D);
          if (relu && !(a > 0)) continue;
          a = product.round(formats.wide, a, at);
          const double one = indexer.weight_scale * of_score;
          add_row(&w.value(t, h), &w.squares(t, h), one, &a, 1);
          const double d_dot = product.round(
              formats.wide, indexer.dot_scale * indexer.weight_scale * in.w(t, h) * of_score,
              T * S * H + at);
          add_row(&q.value(t, h, 0), &q.squares(t, h, 0), d_dot, in.k[s].data, D);
          add_row(&k.value(s, 0), &k.squares(s, 0), d_dot, in.q[t][h].data, D);
        }
      }
    add(name, 0, d.d_q, q, S, formats.model);
    add(name, 1, d.d_k, k, T * H, formats.model);
    add(name, 2, d.d_w, w, S, formats.wide);
  }

  /// The definition's row, its one output rounded as a whole.
  template <class Row>
  auto stored_in(Dtype format, Row row) const {
    const RoundedBackward self = *this;
    return [=](Name name, Out d_x, auto&&... rest) {
      Tensor<double, 2> part(d_x.shape);
      row(name, part.view(), rest...);
      self.add(name, 0, d_x.data, part.data(), part.size(), format);
    };
  }

  BackwardOps<double> ops() const;
};

BackwardOps<double> RoundedBackward::ops() const {
  BackwardOps<double> plain = backward_definition<double>(), ops = plain;
  const RoundedBackward self = *this;
  const ComposedBackward composed{formats, rounding};
  const Dtype model = formats.model, wide = formats.wide;
  const auto linear_of = [self](Dtype format, Dtype kept) {
    return [=](Name name, Out d_x, LinearGradient<double> d, In x, const Linear& w, In d_y) {
      self.linear(name, d_x, d, x, w, d_y, format, kept);
    };
  };
  ops.embed = stored_in(model, plain.embed);
  ops.linear = linear_of(model, model);
  ops.router_logits = ops.index_head_weights = linear_of(model, wide);
  ops.rmsnorm = [=](Name name, Out d_x, View<double, 1> d_g, In x, const Parameter& g, In d_y,
                    double eps) {
    Tensor<double, 2> part(d_x.shape);
    Tensor<double, 1> gain(d_g.shape);
    composed.rmsnorm(name, part, gain, x, g, d_y, eps);
    self.add(name, 0, d_x.data, part.data(), part.size(), model);
    self.add(name, 1, d_g.data, gain.data(), gain.size(), model);
  };
  ops.index_key_norm = [=](Name name, Out d_x, LayernormGradient<double> d, In x,
                           const IndexerWeights& w, const Indexer& indexer, In d_y) {
    Tensor<double, 2> part(d_x.shape);
    Tensor<double, 1> gain(d.d_g.shape), bias(d.d_b.shape);
    plain.index_key_norm(name, part, {gain, bias}, x, w, indexer, d_y);
    self.add(name, 0, d_x.data, part.data(), part.size(), model);
    self.add(name, 1, d.d_g.data, gain.data(), gain.size(), model);
    self.add(name, 2, d.d_b.data, bias.data(), bias.size(), model);
  };
  ops.rope = [=](Name name, auto&&... a) { composed.rope(name, a...); };
  ops.indexer_scores = [=](Name name, auto&&... a) { self.indexer_scores(name, a...); };
  ops.mla_expanded = [=](Name name, auto&&... a) { self.mla(name, a...); };
  ops.mla_absorbed = [](Name name, auto&&...) {
    throw Error(name +
                ": an emulated precision computes MLA in the expanded form, as its original does");
  };
  ops.router_scores =
      stored_in(wide, [=](Name name, auto&&... a) { composed.router_scores(name, a...); });
  ops.router_weights =
      stored_in(wide, [=](Name name, auto&&... a) { composed.router_weights(name, a...); });
  ops.swiglu = [=](Name name, Out d_gate, Out d_up, In gate, In up, In d_h) {
    Tensor<double, 2> of_gate(gate.shape), of_up(up.shape);
    composed.swiglu(name, of_gate, of_up, gate, up, d_h);
    self.add(name, 0, d_gate.data, of_gate.data(), of_gate.size(), model);
    self.add(name, 1, d_up.data, of_up.data(), of_up.size(), model);
  };
  ops.accumulate = [=](Name name, AccumulateGradient<double> d, In x, std::span<const Index> rows,
                       std::span<const double> weights, In d_y) {
    Tensor<double, 2> of_x(d.d_x.shape);
    std::vector<double> of_w(d.d_weights.size());
    composed.accumulate(name, {of_x, of_w}, x, rows, weights, d_y);
    self.add(name, 0, d.d_x.data, of_x.data(), of_x.size(), model);
    self.add(name, 1, d.d_weights.data(), of_w.data(), static_cast<Index>(of_w.size()), wide);
  };
  ops.add = stored_in(model, plain.add);
  ops.cross_entropy =
      stored_in(model, [=](Name name, auto&&... a) { composed.cross_entropy(name, a...); });
  ops.index_kl = stored_in(wide, plain.index_kl);
  ops.balance_loss = stored_in(wide, plain.balance_loss);
  return ops;
}

}  // namespace

BackwardOps<double> backward_ops_of(Precision precision, Rounding rounding) {
  require(precision != Precision::official_fp8 && precision != Precision::llama_f16,
          "gradients are judged at fp64, hf-fp32 or hf-bf16, not at " +
              std::string(name_of(precision)) + ": nobody trains in it");
  const Dtype model = format_of(precision);
  if (model == Dtype::f64 && rounding.mode == Rounding::Mode::nearest)
    return backward_definition<double>();
  return RoundedBackward{{model, model == Dtype::f64 ? Dtype::f64 : Dtype::f32}, rounding}.ops();
}

}  // namespace dsa::reference
