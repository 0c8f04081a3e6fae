// The indexer backwards: scores, ReLU, keys' norm, rotation.
#include <algorithm>
#include <cmath>

#include "reference/ops/dot.hpp"
#include "reference/ops/hadamard.hpp"
#include "reference/ops/norms.hpp"
#include "reference/ops/rope.hpp"
#include "verify/defects/gradients/parts.hpp"

namespace dsa::verify {
namespace {

using reference::IndexerScoresGradient;
using reference::IndexerScoresInputs;
using reference::Visibility;

/// What the definition's row (with its roundings) gives for other inputs, apart.
struct ScoresGradient {
  Tensor<double, 3> q;
  Tensor<double, 2> k, w;
  explicit ScoresGradient(const IndexerScoresInputs<double>& in)
      : q(in.q.shape), k(in.k.shape), w(in.w.shape) {}
  IndexerScoresGradient<double> views() { return {q, k, w}; }
};

/// f(run, sum, told): run(told) gives a ScoresGradient, what `f` returns is added to the sums.
struct ScoresTold {
  IndexerScoresInputs<double> in;
  Tensor<double, 2> d_scores;
  Indexer indexer;
  std::span<const Index> documents;
};
using RunScores = std::function<ScoresGradient(const ScoresTold&)>;
GradientChange scored(std::string name,
                      std::function<ScoresGradient(const RunScores&, const ScoresTold&)> f) {
  return {std::move(name), [f = std::move(f)](GradientVariant& v) {
            around(v.backward.indexer_scores, anywhere(),
                   [f](const auto& inner, Name at, IndexerScoresGradient<double> d,
                       const IndexerScoresInputs<double>& in, In d_scores, const Indexer& indexer,
                       const Visibility& visible) {
                     const RunScores run = [&](const ScoresTold& told) {
                       ScoresGradient part(told.in);
                       inner(at, part.views(), told.in, told.d_scores, told.indexer,
                             {visible.first, told.documents});
                       return part;
                     };
                     const ScoresGradient sum =
                         f(run, {in, copy_of(d_scores), indexer, visible.documents});
                     add_times(d.d_q, 1, sum.q);
                     add_times(d.d_k, 1, sum.k);
                     add_times(d.d_w, 1, sum.w);
                   });
          }};
}

template <int Rank>
void multiply(Tensor<double, Rank>& x, double factor) {
  for (double& value : x) value *= factor;
}

/// The three outputs times factors.
struct Factors {
  double q = 1, k = 1, w = 1;
};
GradientChange times(std::string name, std::function<Factors(const Indexer&)> factors) {
  return scored(std::move(name),
                [factors = std::move(factors)](const RunScores& run, const ScoresTold& told) {
                  ScoresGradient part = run(told);
                  const Factors f = factors(told.indexer);
                  multiply(part.q, f.q), multiply(part.k, f.k), multiply(part.w, f.w);
                  return part;
                });
}

/// Without the ReLU: negative products pass a gradient on.
ScoresGradient linear_scores(const RunScores& run, ScoresTold told) {
  told.indexer.activation = Indexer::Activation::none;
  return run(told);
}

GradientDefects relu() {
  const Applies with_relu = [](const GradientVariant& v) {
    return of_kl(v) && v.model.config.indexer->activation == Indexer::Activation::relu;
  };
  return {
      {440,
       "relu-gradient-passes",
       "Plausible: the index score's ReLU passes the gradient on where the product is negative.",
       "",
       "self_attn.indexer.q",
       with_relu,
       {scored("of queries and keys",
               [](const RunScores& run, const ScoresTold& told) {
                 ScoresGradient part = linear_scores(run, told);
                 part.w = run(told).w;
                 return part;
               }),
        scored("of queries, keys and head weights", linear_scores),
        scored("of queries",
               [](const RunScores& run, const ScoresTold& told) {
                 ScoresGradient part = run(told);
                 part.q = linear_scores(run, told).q;
                 return part;
               }),
        scored("of keys",
               [](const RunScores& run, const ScoresTold& told) {
                 ScoresGradient part = run(told);
                 part.k = linear_scores(run, told).k;
                 return part;
               }),
        scored("of head weights", [](const RunScores& run, const ScoresTold& told) {
          ScoresGradient part = run(told);
          part.w = linear_scores(run, told).w;
          return part;
        })}}};
}

GradientDefects factors() {
  return {{441,
           "indexer-backward-scale",
           "Plausible: a factor of the index scores is left out, or taken twice, in their backward "
           "pass.",
           "",
           "self_attn.indexer.q",
           of_kl,
           {times("index_head_dim^-1/2 left out",
                  [](const Indexer& i) {
                    return Factors{1 / i.dot_scale, 1 / i.dot_scale, 1};
                  }),
            times("index_head_dim^-1/2 left out everywhere",
                  [](const Indexer& i) {
                    return Factors{1 / i.dot_scale, 1 / i.dot_scale, 1 / i.dot_scale};
                  }),
            times("index_head_dim^-1/2 left out of the head weights' gradient",
                  [](const Indexer& i) {
                    return Factors{1, 1, 1 / i.dot_scale};
                  }),
            times("index_head_dim^-1/2 twice",
                  [](const Indexer& i) {
                    return Factors{i.dot_scale, i.dot_scale, 1};
                  }),
            times("index_n_heads^-1/2 left out",
                  [](const Indexer& i) {
                    return Factors{1 / i.weight_scale, 1 / i.weight_scale, 1 / i.weight_scale};
                  }),
            times("index_n_heads^-1/2 left out of the head weights' gradient",
                  [](const Indexer& i) {
                    return Factors{1, 1, 1 / i.weight_scale};
                  }),
            times("index_n_heads^-1/2 left out of queries and keys",
                  [](const Indexer& i) {
                    return Factors{1 / i.weight_scale, 1 / i.weight_scale, 1};
                  }),
            times("both left out of the head weights' gradient",
                  [](const Indexer& i) {
                    return Factors{1, 1, 1 / (i.weight_scale * i.dot_scale)};
                  }),
            times("both left out",
                  [](const Indexer& i) {
                    const double all = 1 / (i.weight_scale * i.dot_scale);
                    return Factors{all, all, all};
                  }),
            times("keys: averaged over heads, not summed",
                  [](const Indexer& i) {
                    return Factors{1, 1 / static_cast<double>(i.n_heads), 1};
                  })}},
          {47,
           "indexer-part-detached",
           "A part of the indexer receives no gradient.",
           issue("huggingface/transformers", 48826),
           "self_attn.indexer.q",
           of_kl,
           {times("queries",
                  [](const Indexer&) {
                    return Factors{0, 1, 1};
                  }),
            times("keys",
                  [](const Indexer&) {
                    return Factors{1, 0, 1};
                  }),
            times("head weights",
                  [](const Indexer&) {
                    return Factors{1, 1, 0};
                  }),
            times("queries and keys", [](const Indexer&) {
              return Factors{0, 0, 1};
            })}}};
}

/// Scores' gradients that some heads, queries or keys alone pass on to the keys.
GradientChange keys_from(std::string name,
                         std::function<bool(const ScoresTold&, Index t, Index s)> counts) {
  return scored(std::move(name),
                [counts = std::move(counts)](const RunScores& run, const ScoresTold& told) {
                  ScoresGradient part = run(told);
                  ScoresTold some = told;
                  for (Index t = 0; t < told.d_scores.shape()[0]; ++t)
                    for (Index s = 0; s < told.d_scores.shape()[1]; ++s)
                      if (!counts(told, t, s)) some.d_scores(t, s) = 0;
                  part.k = run(some).k;
                  return part;
                });
}

GradientChange keys_of_head(std::string name, bool last) {
  return scored(std::move(name), [last](const RunScores& run, const ScoresTold& told) {
    ScoresGradient part = run(told);
    Tensor<double, 2> w = copy_of(told.in.w);
    const Index H = w.shape()[1];
    for (Index t = 0; t < w.shape()[0]; ++t)
      for (Index h = 0; h < H; ++h)
        if (h != (last ? H - 1 : 0)) w(t, h) = 0;
    ScoresTold one = told;
    one.in.w = w;
    part.k = run(one).k;
    return part;
  });
}

/// Channels, or keys, one place on: a vector-wide addition at the wrong address.
GradientChange keys_shifted(std::string name, bool rows) {
  return scored(std::move(name), [rows](const RunScores& run, const ScoresTold& told) {
    ScoresGradient part = run(told);
    const Tensor<double, 2> right = part.k;
    const Index S = right.shape()[0], D = right.shape()[1];
    for (Index s = 0; s < S; ++s)
      for (Index i = 0; i < D; ++i)
        part.k(s, i) = rows ? right((s + S - 1) % S, i) : right(s, (i + D - 1) % D);
    return part;
  });
}

bool is_last(std::span<const Index> documents, Index s) {
  const auto at = static_cast<std::size_t>(s);
  return at + 1 == documents.size() || documents[at + 1] != documents[at];
}

bool is_last_query(const ScoresTold& told, Index t, Index s) {
  for (Index later = t + 1; later < told.d_scores.shape()[0]; ++later)
    if (told.d_scores(later, s) != 0) return false;
  return true;
}

GradientDefects keys() {
  return {
      {442,
       "indexer-key-gradient-of-one-head",
       "Plausible: the gradient of the indexer's key, which all heads share, is that of one head.",
       "",
       "self_attn.indexer.k",
       of_kl,
       {keys_of_head("the first", false), keys_of_head("the last", true)}},
      {52,
       "indexer-key-gradient-dropped",
       "The gradient of some of the indexer's keys is dropped.",
       issue("NVIDIA/cudnn-frontend", 298),
       "self_attn.indexer.k",
       of_kl,
       {keys_from("keys of another position than the query's",
                  [](const ScoresTold&, Index t, Index s) { return t == s; }),
        keys_from("the query's own key",
                  [](const ScoresTold&, Index t, Index s) { return t != s; }),
        keys_from("keys from index_topk on",
                  [](const ScoresTold& told, Index, Index s) { return s < told.indexer.topk; }),
        keys_from(
            "the last key of a sequence",
            [](const ScoresTold& told, Index, Index s) { return !is_last(told.documents, s); }),
        keys_from("the second half of the keys",
                  [](const ScoresTold& told, Index, Index s) {
                    return 2 * s < told.d_scores.shape()[1];
                  })}},
      {53,
       "indexer-key-gradient-overwritten",
       "Queries that chose the same key of the indexer overwrite its gradient.",
       issue("NVIDIA/cudnn-frontend", 385),
       "self_attn.indexer.k",
       of_kl,
       {keys_from("the last query stays", is_last_query)}},
      {54,
       "indexer-key-gradient-misaddressed",
       "The gradient of the indexer's keys is added at the wrong address.",
       issue("tile-ai/tilelang", 1588),
       "self_attn.indexer.k",
       of_kl,
       {keys_shifted("one channel on", false), keys_shifted("one key on", true)}}};
}

/// Layer norm backwards without one of its means, or without both.
void norm_backward(GradientVariant& v, bool mean, bool along) {
  around(v.backward.index_key_norm, anywhere(),
         [=](const auto& inner, Name name, Out d_x, reference::LayernormGradient<double> d, In x,
             const IndexerWeights& w, const Indexer& indexer, In d_y) {
           Tensor<double, 2> unused(d_x.shape);
           inner(name, unused, d, x, w, indexer, d_y);
           const std::vector<double> g = read_all<double>(w.k_norm);
           const Index C = x.shape[1];
           const auto n_channels = static_cast<double>(C);
           for (Index t = 0; t < x.shape[0]; ++t) {
             double centre = 0, variance = 0, of_d = 0, of_dn = 0;
             for (Index c = 0; c < C; ++c) centre += x(t, c) / n_channels;
             for (Index c = 0; c < C; ++c) variance += std::pow(x(t, c) - centre, 2) / n_channels;
             const double deviation = std::sqrt(variance + indexer.key_norm_eps);
             const auto d_n = [&](Index c) { return g[static_cast<std::size_t>(c)] * d_y(t, c); };
             const auto n = [&](Index c) { return (x(t, c) - centre) / deviation; };
             for (Index c = 0; c < C; ++c) {
               of_d += d_n(c) / n_channels;
               of_dn += d_n(c) * n(c) / n_channels;
             }
             for (Index c = 0; c < C; ++c)
               d_x(t, c) += (d_n(c) - (mean ? of_d : 0) - (along ? n(c) * of_dn : 0)) / deviation;
           }
         });
}

GradientDefects norm() {
  const Applies with_layernorm = [](const GradientVariant& v) {
    return of_kl(v) && v.model.config.indexer->key_norm == Indexer::KeyNorm::layer_norm;
  };
  return {{443,
           "indexer-key-norm-backward",
           "Plausible: the layer norm of the indexer's keys treats its statistics as constants "
           "backwards.",
           "",
           "self_attn.indexer.wk",
           with_layernorm,
           {{"mean and deviation", [](GradientVariant& v) { norm_backward(v, false, false); }},
            {"the deviation", [](GradientVariant& v) { norm_backward(v, true, false); }},
            {"the mean", [](GradientVariant& v) { norm_backward(v, false, true); }}}}};
}

GradientChange rotated(std::string name, std::vector<std::string> which, bool same_way) {
  return {std::move(name), [=](GradientVariant& v) {
            for (const std::string& end : which)
              around(
                  v.backward.rope, ends("self_attn.indexer." + end),
                  [=](const auto&, Name, View<double, 3> d_x, In cos, In sin, RopeLayout layout) {
                    if (same_way) reference::rope<double>(d_x, cos, sin, layout);
                  });
          }};
}

/// Hadamard's rotation missing backwards: gradients stay in the rotated basis.
void keep_rotated(GradientVariant& v) {
  around(v.backward.indexer_scores, anywhere(),
         [](const auto& inner, Name name, IndexerScoresGradient<double> d, auto&&... rest) {
           inner(name, d, rest...);
           const Index D = d.d_k.shape[1];
           reference::hadamard<double>(View<double, 2>{d.d_q.data, {d.d_q.size() / D, D}});
           reference::hadamard<double>(d.d_k);
         });
}

GradientDefects rotation() {
  return {{444,
           "indexer-rope-backward",
           "Plausible: the indexer's rotation is turned the same way backwards, or not at all.",
           "",
           "self_attn.indexer.wq_b",
           of_kl,
           {rotated("the same way", {"q", "k"}, true), rotated("queries the same way", {"q"}, true),
            rotated("keys the same way", {"k"}, true), rotated("not at all", {"q", "k"}, false),
            rotated("queries not at all", {"q"}, false), rotated("keys not at all", {"k"}, false)}},
          {445,
           "indexer-hadamard-backward",
           "Plausible: the indexer's Hadamard rotation is left out backwards.",
           "",
           "self_attn.indexer.q",
           [](const GradientVariant& v) {
             return of_kl(v) && has_power_of_two_index_head(v.model.config);
           },
           {{"", keep_rotated}}}};
}

}  // namespace

GradientDefects indexer_gradient_defects() {
  GradientDefects all;
  for (const GradientDefects& part : {relu(), factors(), keys(), norm(), rotation()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
