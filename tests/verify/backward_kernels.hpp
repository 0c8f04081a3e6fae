// tests/verify/backward_kernels.hpp — the ops of training in fp32, a loop a subscript, right and
// wrong on purpose, as tests/cuda/scalar_kernels.hpp has those of the engine. Attention and the
// indexer are in backward_attention.hpp.
#pragma once

#include "tests/cuda/scalar_kernels.hpp"

namespace dsa::test {

/// Rows beyond the last one that a kernel does.
inline Index rows_done(Index T, const std::string& bug) {
  return bug == "last row dropped" && T > 1 ? T - 1 : T;
}

/// The output, with what was there before.
template <int Rank>
View<float, Rank> before(const Case& c, Arrays& out, const char* name, const std::string& bug) {
  const auto y = out.at(name).as<float, Rank>();
  const auto x = c.in.at(name).as<float, Rank>();
  std::copy(x.begin(), x.end(), y.begin());
  if (bug == std::string(name) + " overwritten") std::fill(y.begin(), y.end(), 0.0f);
  return y;
}

inline void scalar_embed_backward(const Case& c, Arrays& out, const std::string& bug) {
  const auto tokens = c.in.at("tokens").as<std::int32_t, 1>();
  const auto d_x = c.in.at("d_x").as<float, 2>();
  const auto d_table = before<2>(c, out, "d_table", bug);
  for (Index t = 0; t < rows_done(d_x.shape[0], bug); ++t) {
    const std::int32_t v = tokens(t);
    if (v < 0 || v >= d_table.shape[0]) throw Error("token " + std::to_string(v) + " is none");
    for (Index i = 0; i < d_x.shape[1]; ++i)
      d_table(v, i) = (bug == "rows of a token race" ? c.in.at("d_table").as<float, 2>()(v, i)
                                                     : d_table(v, i)) +
                      d_x(t, i);
  }
}

inline void scalar_norm_backward(const Case& c, Arrays& out, const std::string& bug) {
  const auto x = c.in.at("x").as<float, 2>(), d_y = c.in.at("d_y").as<float, 2>();
  const auto g = c.in.at("g").as<float, 1>();
  const bool centred = c.in.contains("d_b");
  const auto d_x = before<2>(c, out, "d_x", bug);
  const auto d_g = before<1>(c, out, "d_g", bug);
  const auto d_b = centred ? before<1>(c, out, "d_b", bug) : View<float, 1>{};
  const Index C = x.shape[1];
  const float n = static_cast<float>(C);
  for (Index t = 0; t < rows_done(x.shape[0], bug); ++t) {
    float mean = 0, along = 0, squares = 0, all = 0;
    for (Index i = 0; i < C && centred; ++i) mean += x(t, i) / n;
    for (Index i = 0; i < C; ++i) {
      const float d_n = bug == "gain left out" ? d_y(t, i) : g(i) * d_y(t, i);
      squares += (x(t, i) - mean) * (x(t, i) - mean);
      along += d_n * (x(t, i) - mean);
      all += d_n;
    }
    const float eps = bug == "no eps" ? 0 : static_cast<float>(c.scalar("eps"));
    const float over_r = squares + eps == 0 ? 1 : 1 / std::sqrt(squares / n + eps);
    for (Index i = 0; i < C; ++i) {
      const float y = (x(t, i) - mean) * over_r;
      const float d_n = bug == "gain left out" ? d_y(t, i) : g(i) * d_y(t, i);
      float d = d_n - y * (bug == "no mean of d_n n" ? 0 : along * over_r / n);
      if (centred && bug != "no mean of d_n") d -= all / n;
      d_x(t, i) += bug == "not divided by r" ? d : d * over_r;
      d_g(i) += d_y(t, i) * (bug == "d_g of x" ? x(t, i) : y);
      if (centred) d_b(i) += bug == "gain in d_b" ? d_n : d_y(t, i);
    }
  }
}

inline void scalar_rope_backward(const Case& c, Arrays& out, const std::string& bug) {
  const auto d_y = c.in.at("d_y").as<float, 3>();
  const auto d_x = out.at("d_x").as<float, 3>();
  const auto cos = c.in.at("cos").as<float, 2>(), sin = c.in.at("sin").as<float, 2>();
  const Index half = cos.shape[1],
              first = bug == "always the first channels" ? 0 : c.integer("first");
  const bool interleaved = c.flag("interleaved") != (bug == "the other layout");
  std::copy(d_y.begin(), d_y.end(), d_x.begin());
  for (Index t = 0; t < rows_done(d_y.shape[0], bug); ++t)
    for (Index h = 0; h < d_y.shape[1]; ++h)
      for (Index i = 0; i < half; ++i) {
        const Index a = first + (interleaved ? 2 * i : i), b = interleaved ? a + 1 : a + half;
        const float s = bug == "turned forwards" ? -sin(t, i) : sin(t, i);
        d_x(t, h, a) = d_y(t, h, a) * cos(t, i) + d_y(t, h, b) * s;
        d_x(t, h, b) =
            d_y(t, h, b) * cos(t, i) - (bug == "turned in place" ? d_x(t, h, a) : d_y(t, h, a)) * s;
      }
}

/// What matrix e adds to d_w and d_b.
inline void scalar_weight_gradient(const Case& c, View<float, 2> d_w, View<float, 1> d_b,
                                   Index begin, Index end, const std::string& bug) {
  const auto x = c.in.at("x").as<float, 2>(), d_y = c.in.at("d_y").as<float, 2>();
  if (bug == "last row of a matrix dropped") end = std::max(begin, end - 1);
  for (Index f = 0; f < d_w.shape[0]; ++f) {
    for (Index i = 0; i < d_w.shape[1]; ++i) {
      Sum sum(bug);
      for (Index t = begin; t < end; ++t) sum.add(d_y(t, f), x(t, i));
      d_w(f, i) += sum.total();
    }
    for (Index t = begin; t < end; ++t) d_b(f) += bug == "d_b of rows" ? 1 : d_y(t, f);
  }
}

inline void scalar_linear_backward(const Case& c, Arrays& out, const std::string& bug) {
  const auto d_y = c.in.at("d_y").as<float, 2>();
  const auto w = c.in.at("w").as<float, 3>();
  const auto begin = c.in.at("begin").as<std::int32_t, 1>();
  const auto d_x = before<2>(c, out, "d_x", bug);
  const auto d_w = before<3>(c, out, "d_w", bug);
  const auto d_b = before<2>(c, out, "d_b", bug);
  const Index E = w.shape[0], F = w.shape[1], C = w.shape[2];
  for (Index e = 0; e < E; ++e) {
    for (Index t = begin(e); t < begin(e + 1); ++t)
      for (Index i = 0; i < C; ++i) {
        Sum sum(bug);
        for (Index f = 0; f < (bug == "last output dropped" ? F - 1 : F); ++f)
          sum.add(d_y(t, f), bug == "w not turned over" ? w[e].data[i * F + f]
                                                        : w(bug == "first matrix" ? 0 : e, f, i));
        d_x(t, i) += sum.total();
      }
    scalar_weight_gradient(c, d_w[e], d_b[e], begin(e), begin(e + 1), bug);
  }
}

inline void scalar_swiglu_backward(const Case& c, Arrays& out, const std::string& bug) {
  const auto x = c.in.at("gate_up").as<float, 2>(), d_h = c.in.at("d_h").as<float, 2>();
  const auto d = out.at("d_gate_up").as<float, 2>();
  const Index F = d_h.shape[1];
  for (Index t = 0; t < d_h.shape[0]; ++t)
    for (Index f = 0; f < F; ++f) {
      const bool swapped = bug == "gate and up swapped";
      const float z = x(t, swapped ? F + f : f), up = x(t, swapped ? f : F + f);
      const float a =
          bug == "e^g over 1 + e^g" ? std::exp(z) / (1 + std::exp(z)) : 1 / (1 + std::exp(-z));
      const float slope = bug == "a is a constant" ? 0
                          : bug == "1 + a"         ? z * (1 + a)
                          : bug == "slope of tanh" ? z * (1 - a * a)
                                                   : z * (1 - a);
      d(t, f) = d_h(t, f) * (bug == "up left out" ? 1 : up) * a * (1 + slope);
      d(t, F + f) = d_h(t, f) * (bug == "d_up without gate" ? 1 : z) * a;
    }
}

inline void scalar_router_scores_backward(const Case& c, Arrays& out, const std::string& bug) {
  const auto s = c.in.at("s").as<float, 2>(), d_s = c.in.at("d_s").as<float, 2>();
  const auto d_z = out.at("d_z").as<float, 2>();
  const Index E = s.shape[1];
  const bool softmax = c.flag("scoring") && bug != "always a sigmoid";
  for (Index t = 0; t < s.shape[0]; ++t) {
    float along = 0;
    for (Index e = 0; e < E && bug != "no sum over experts"; ++e) along += d_s(t, e) * s(t, e);
    for (Index e = 0; e < E; ++e)
      d_z(t, e) = softmax                ? s(t, e) * (d_s(t, e) - along)
                  : bug == "slope 1 - s" ? d_s(t, e) * (1 - s(t, e))
                                         : d_s(t, e) * s(t, e) * (1 - s(t, e));
  }
}

inline void scalar_router_weights_backward(const Case& c, Arrays& out, const std::string& bug) {
  const auto s = c.in.at("s").as<float, 2>(), d_w = c.in.at("d_weights").as<float, 2>();
  const auto experts = c.in.at("experts").as<std::int32_t, 2>();
  const auto d_s = out.at("d_s").as<float, 2>();
  const bool normalise = c.flag("norm_topk_prob") && bug != "never normalised";
  const float scale =
      bug == "no factor" ? 1 : static_cast<float>(c.scalar("routed_scaling_factor"));
  if (bug != "others not written") std::fill(d_s.begin(), d_s.end(), 0.0f);
  for (Index t = 0; t < s.shape[0]; ++t) {
    float sum = 0, along = 0;
    for (const std::int32_t e : experts[t]) sum += s(t, e);
    for (Index i = 0; i < d_w.shape[1]; ++i) along += d_w(t, i) * s(t, experts(t, i));
    if (bug == "sum is a constant") along = 0;
    for (Index i = 0; i < d_w.shape[1]; ++i)
      d_s(t, experts(t, i)) = scale * (normalise ? (d_w(t, i) - along / sum) / sum : d_w(t, i));
  }
}

/// Rows [begin, end) as a document. Returns its loss.
inline float scalar_balance(const Case& c, View<float, 2> d_s, Index begin, Index end,
                            const std::string& bug) {
  const auto s = c.in.at("s").as<float, 2>();
  const auto experts = c.in.at("experts").as<std::int32_t, 2>();
  const Index E = s.shape[1], k = experts.shape[1];
  const float rows = static_cast<float>(end - begin);
  std::vector<float> f(static_cast<std::size_t>(E));
  for (Index t = begin; t < end; ++t)
    for (const std::int32_t e : experts[t])
      f[static_cast<std::size_t>(e)] +=
          static_cast<float>(E) / (rows * (bug == "k left out" ? 1 : static_cast<float>(k)));
  float loss = 0;
  for (Index t = begin; t < end; ++t) {
    float sum = 0, mean = 0;
    for (Index e = 0; e < E; ++e) sum += s(t, e);
    if (bug == "not normalised") sum = 1;
    for (Index e = 0; e < E; ++e) mean += f[static_cast<std::size_t>(e)] * (s(t, e) / sum);
    loss += mean / rows;
    for (Index e = 0; e < E; ++e)
      d_s(t, e) += static_cast<float>(c.scalar("factor")) / (bug == "sum over rows" ? 1 : rows) *
                   (f[static_cast<std::size_t>(e)] - (bug == "sum is a constant" ? 0 : mean)) / sum;
  }
  return loss;
}

inline void scalar_balance_backward(const Case& c, Arrays& out, const std::string& bug) {
  const auto begin = c.in.at("begin").as<std::int32_t, 1>();
  const auto d_s = before<2>(c, out, "d_s", bug);
  const auto loss = out.at("loss").as<float, 1>();
  loss(0) = 0;
  const Index T = begin.shape[0];
  for (Index t = 0, end = 0; t < T; t = end) {
    for (end = t + 1; end < T && (begin(end) == t || bug == "one document");) ++end;
    loss(0) += scalar_balance(c, d_s, t, end, bug);
  }
}

/// The rows of pairs t k + i; by token, they are the pairs themselves.
inline std::vector<Index> scalar_rows(const Case& c, const std::string& bug) {
  const auto experts = c.in.at("experts").as<std::int32_t, 2>();
  for (const std::int32_t e : experts)
    if (e < 0 || e >= c.integer("experts")) throw Error("there is no expert " + std::to_string(e));
  std::vector<Index> pairs(static_cast<std::size_t>(experts.size())), rows(pairs.size());
  std::iota(pairs.begin(), pairs.end(), 0);
  std::stable_sort(pairs.begin(), pairs.end(), [&](Index a, Index b) {
    if (experts.data[a] == experts.data[b] && bug == "later token first") return a > b;
    return bug != "rows by token" && experts.data[a] < experts.data[b];
  });
  for (std::size_t row = 0; row < pairs.size(); ++row)
    rows[static_cast<std::size_t>(pairs[row])] = static_cast<Index>(row);
  return rows;
}

inline void scalar_mixing(const Case& c, Arrays& out, const std::string& bug) {
  const std::vector<Index> rows = scalar_rows(c, bug);
  const auto y = before<2>(c, out, "y", bug);
  const auto x = c.in.at("x").as<float, 2>();
  const Index k = c.in.at("experts").shape()[1];
  for (Index t = 0; t < rows_done(y.shape[0], bug); ++t)
    for (Index i = 0; i < (bug == "last expert dropped" && k > 1 ? k - 1 : k); ++i) {
      const float w = c.in.contains("weights") && bug != "weights ignored"
                          ? c.in.at("weights").as<float, 2>()(t, i)
                          : 1;
      for (Index j = 0; j < y.shape[1]; ++j)
        y(t, j) += w * x(rows[static_cast<std::size_t>(t * k + i)], j);
    }
}

inline void scalar_mixing_backward(const Case& c, Arrays& out, const std::string& bug) {
  const std::vector<Index> rows = scalar_rows(c, bug);
  const auto weights = c.in.at("weights").as<float, 2>();
  const auto d_weights = out.at("d_weights").as<float, 2>();
  const auto h = before<2>(c, out, "h", bug), d_h = before<2>(c, out, "d_h", bug);
  for (std::size_t pair = 0; pair < rows.size(); ++pair) {
    const float w = weights.data[pair];
    Sum dot(bug);
    for (Index i = 0; i < h.shape[1]; ++i) {
      float &a = h(rows[pair], i), &b = d_h(rows[pair], i);
      dot.add(bug == "d_weights of weighted rows" ? w * a : a, b);
      if (bug != "h not weighted") a *= w;
      b *= bug == "d_h weighted twice" ? w * w : w;
    }
    d_weights.data[pair] = dot.total();
  }
}

inline void scalar_cross_entropy_backward(const Case& c, Arrays& out, const std::string& bug) {
  const auto z = c.in.at("z").as<float, 2>();
  const auto d_z = out.at("d_z").as<float, 2>();
  const auto loss = out.at("loss").as<float, 1>();
  const auto factor = c.in.at("factor").as<float, 1>();
  const auto targets = c.in.at("targets").as<std::int32_t, 1>();
  const Index V = z.shape[1];
  for (const std::int32_t target : targets)
    if (target < 0 || target >= V) throw Error("there is no target " + std::to_string(target));
  for (Index t = 0; t < z.shape[0]; ++t) {
    std::int32_t target = targets(t);
    if (bug == "target of the next row" && t + 1 < z.shape[0]) target = targets(t + 1);
    float largest = -infinity_f, sum = 0;
    for (const float x : z[t]) largest = std::max(largest, x);
    if (bug == "no maximum subtracted") largest = 0;
    for (Index v = 0; v < (bug == "last token dropped" && V > 1 ? V - 1 : V); ++v)
      sum += std::exp(z(t, v) - largest);
    loss(t) = std::log(sum) + (largest - z(t, target));
    if (bug == "loss times its factor") loss(t) *= factor(t);
    for (Index v = 0; v < V; ++v) {
      const float p = std::exp(z(t, v) - largest) / sum;
      d_z(t, v) = factor(t) * (p - (v == target && bug != "target not subtracted" ? 1.0f : 0.0f));
      if (bug == "mean over tokens") d_z(t, v) /= static_cast<float>(z.shape[0]);
      if (bug == "target not times its factor" && v == target) d_z(t, v) = factor(t) * p - 1;
    }
  }
}

}  // namespace dsa::test
