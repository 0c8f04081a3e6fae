// What the indexer is compared with: main attention, summed over heads, a constant.
#include <cmath>
#include <map>
#include <memory>

#include "reference/ops/dot.hpp"
#include "reference/ops/mla_keys.hpp"
#include "verify/defects/gradients/parts.hpp"

namespace dsa::verify {
namespace {

using Attention = reference::MlaExpandedInputs<double>;

/// f(inner, name, u, attention, kept keys) in place of the teacher's attention mass.
template <class F>
GradientChange taught(std::string name, F f) {
  return {std::move(name), [f](GradientVariant& v) {
            around(v.ops.attention_mass, anywhere(),
                   [f, c = v.model.config](const auto& inner, Name at, Out u, const Attention& in,
                                           Keys kept) { f(c, inner, at, u, in, kept); });
          }};
}

GradientChange scaled(std::string name, std::function<double(const Config&)> factor) {
  return taught(std::move(name),
                [factor = std::move(factor)](const Config& config, const auto& inner, Name at,
                                             Out u, Attention in, Keys kept) {
                  in.scale *= factor(config);
                  inner(at, u, in, kept);
                });
}

double softmax_mscale(const Config& c) { return mscale(c, c.rope.mscale_all_dim); }

GradientDefects scales() {
  const Applies with_mscale = [](const GradientVariant& v) {
    return of_kl(v) && has_softmax_mscale(v.model.config);
  };
  return {
      {62,
       "teacher-mscale",
       "The teacher is computed again with another power of YaRN's mscale in its softmax scale.",
       issue("onnxruntime/mobius", 548),
       "loss.kl",
       with_mscale,
       {scaled("without mscale^2",
               [](const Config& c) { return 1 / (softmax_mscale(c) * softmax_mscale(c)); }),
        scaled("mscale once", [](const Config& c) { return 1 / softmax_mscale(c); }),
        scaled("mscale^2 twice",
               [](const Config& c) { return softmax_mscale(c) * softmax_mscale(c); })},
       true},
      {206,
       "teacher-scale",
       "Plausible: the teacher's softmax has another scale than main attention's.",
       "",
       "loss.kl",
       of_kl,
       {scaled("applied twice", [](const Config& c) { return c.attention_scale(); }),
        scaled("left out", [](const Config& c) { return 1 / c.attention_scale(); }),
        scaled("of qk_nope_head_dim alone",
               [](const Config& c) {
                 return std::sqrt(static_cast<double>(c.qk_nope_head_dim + c.qk_rope_head_dim) /
                                  static_cast<double>(c.qk_nope_head_dim));
               }),
        scaled("of the absorbed width",
               [](const Config& c) {
                 return std::sqrt(static_cast<double>(c.qk_nope_head_dim + c.qk_rope_head_dim) /
                                  static_cast<double>(c.kv_lora_rank + c.qk_rope_head_dim));
               }),
        scaled("of v_head_dim",
               [](const Config& c) {
                 return std::sqrt(static_cast<double>(c.qk_nope_head_dim + c.qk_rope_head_dim) /
                                  static_cast<double>(c.v_head_dim));
               })},
       true}};
}

/// u of a row from each head's softmax over its keys.
using Mixture =
    std::function<std::vector<double>(const Attention&, Index t, const std::vector<Index>& keys)>;
GradientChange mixed(std::string name, Mixture mixture) {
  return taught(std::move(name),
                [mixture = std::move(mixture)](const Config&, const auto& inner, Name at, Out u,
                                               const Attention& in, Keys kept) {
                  inner(at, u, in, kept);  // zero outside of the kept keys
                  for (Index t = 0; t < u.shape[0]; ++t) {
                    const std::vector<Index> keys = reference::keys_of(in.chosen[t]);
                    const std::vector<double> mass = mixture(in, t, keys);
                    for (std::size_t i = 0; i < keys.size(); ++i)
                      if (u(t, keys[i]) > 0) u(t, keys[i]) = mass[i];
                  }
                });
}

Mixture of_head(std::function<Index(Index heads)> which) {
  return [which = std::move(which)](const Attention& in, Index t, const std::vector<Index>& keys) {
    return head_attention(in, t, which(in.q_nope.shape[1]), keys);
  };
}

std::vector<double> largest_head(const Attention& in, Index t, const std::vector<Index>& keys) {
  std::vector<double> most(keys.size());
  for (Index n = 0; n < in.q_nope.shape[1]; ++n) {
    const std::vector<double> p = head_attention(in, t, n, keys);
    for (std::size_t i = 0; i < p.size(); ++i) most[i] = std::max(most[i], p[i]);
  }
  return most;
}

/// softmax of the heads' mean logit; with a head's softmax p, log p is the logit up to a constant.
std::vector<double> mean_logit(const Attention& in, Index t, const std::vector<Index>& keys) {
  const Index N = in.q_nope.shape[1];
  std::vector<double> z(keys.size());
  for (Index n = 0; n < N; ++n) {
    const std::vector<double> p = head_attention(in, t, n, keys);
    for (std::size_t i = 0; i < p.size(); ++i) z[i] += std::log(p[i]) / static_cast<double>(N);
  }
  reference::softmax(z.data(), static_cast<Index>(z.size()));
  return z;
}

/// Each head's sum over the first `columns` keys of the row alone.
Mixture lse_over(std::function<Index(Index)> columns) {
  return
      [columns = std::move(columns)](const Attention& in, Index t, const std::vector<Index>& keys) {
        std::vector<double> mass(keys.size());
        std::vector<std::size_t> order(keys.size());
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
        std::sort(order.begin(), order.end(),
                  [&](std::size_t a, std::size_t b) { return keys[a] < keys[b]; });
        for (Index n = 0; n < in.q_nope.shape[1]; ++n) {
          const std::vector<double> p = head_attention(in, t, n, keys);
          double sum = 0;
          const auto n_keys = static_cast<Index>(keys.size());
          const Index most = std::min(n_keys, columns(n_keys));
          for (Index i = 0; i < most; ++i) sum += p[order[static_cast<std::size_t>(i)]];
          for (std::size_t i = 0; i < p.size(); ++i) mass[i] += p[i] / sum;
        }
        return mass;
      };
}

/// Squares of probabilities: a teacher at half the temperature.
std::vector<double> sharpened(const Attention& in, Index t, const std::vector<Index>& keys) {
  std::vector<double> mass(keys.size());
  for (Index n = 0; n < in.q_nope.shape[1]; ++n) {
    const std::vector<double> p = head_attention(in, t, n, keys);
    for (std::size_t i = 0; i < p.size(); ++i) mass[i] += p[i] * p[i];
  }
  return mass;
}

std::vector<double> uniform(const Attention&, Index, const std::vector<Index>& keys) {
  return std::vector<double>(keys.size(), 1.0);
}

GradientDefects mixtures() {
  const auto first = [](Index) { return Index{0}; };
  const auto last = [](Index heads) { return heads - 1; };
  const auto half = [](Index keys) { return (keys + 1) / 2; };
  return {{205,
           "teacher-of-one-head",
           "Plausible: the teacher is the best head, one head, or the softmax of the mean logit; "
           "not the sum.",
           "",
           "loss.kl",
           of_kl,
           {mixed("the best head of each key", largest_head), mixed("head 0", of_head(first)),
            mixed("the last head", of_head(last)), mixed("softmax of the mean logit", mean_logit)},
           true},
          {44,
           "teacher-denominator",
           "A head's softmax in the teacher is divided by the sum over other keys than its own.",
           issue("NVIDIA/Megatron-LM", 5776),
           "loss.kl",
           of_kl,
           {mixed("over the first half of them", lse_over(half)),
            mixed("over the first of them", lse_over([](Index) { return Index{1}; }))},
           true},
          {430,
           "teacher-not-attention",
           "Plausible: the teacher is something else than attention.",
           "",
           "loss.kl",
           of_kl,
           {mixed("every key alike", uniform), mixed("squared probabilities", sharpened)},
           true}};
}

/// The loss with a teacher that is u times a factor of the row's heads, whatever it sums to.
GradientChange unnormalised(std::string name, bool per_head, bool dense) {
  return {std::move(name), [=](GradientVariant& v) {
            if (dense) {
              KlSemantics semantics = v.objective.semantics;
              semantics.teacher_softmax = KlSemantics::Keys::visible;
              read_as(v, semantics);
            }
            const double heads = static_cast<double>(v.model.config.num_attention_heads);
            replace_kl(v, [=](const KlRow& row, std::vector<double>& d_z) {
              double loss = 0, sum = 0;
              for (const double u : row.u) sum += per_head ? u / heads : u;
              for (std::size_t i = 0; i < row.u.size(); ++i) {
                const double p = per_head ? row.u[i] / heads : row.u[i];
                if (p > 0) loss += p * (std::log(p) - std::log(row.q[i]));
                d_z[i] = row.q[i] * sum - p;
              }
              return loss;
            });
          }};
}

/// The heads' own divergences: the gradient of their mean is the right one, their value is not.
void divergences_of_heads(GradientVariant& v, bool sum) {
  const auto entropy = std::make_shared<std::vector<double>>();  // of the last teacher, row by row
  const double heads = static_cast<double>(v.model.config.num_attention_heads);
  around(v.ops.attention_mass, anywhere(),
         [=](const auto& inner, Name at, Out u, const Attention& in, Keys kept) {
           inner(at, u, in, kept);
           entropy->assign(static_cast<std::size_t>(u.shape[0]), 0);
           for (Index t = 0; t < u.shape[0]; ++t)
             for (Index n = 0; n < in.q_nope.shape[1]; ++n)
               for (const double p : head_attention(in, t, n, reference::keys_of(in.chosen[t])))
                 if (p > 0) (*entropy)[static_cast<std::size_t>(t)] += p * std::log(p);
         });
  const double factor = sum ? heads : 1;
  replace_kl(v, [=](const KlRow& row, std::vector<double>& d_z) {
    double loss = (*entropy)[static_cast<std::size_t>(row.t)] / heads;
    for (std::size_t i = 0; i < row.p.size(); ++i) {
      loss -= row.p[i] * std::log(row.q[i]);
      d_z[i] = factor * (row.q[i] - row.p[i]);
    }
    return factor * loss;
  });
}

GradientDefects sums() {
  return {
      {203,
       "teacher-not-normalised",
       "Plausible: the teacher is not normalised to a sum of 1.",
       "",
       "loss.kl",
       of_kl,
       {unnormalised("the sum over heads", false, false),
        unnormalised("dense teacher, mean over heads", true, true),
        unnormalised("dense teacher, sum over heads", false, true)},
       true},
      {431,
       "kl-of-each-head",
       "Plausible: the loss is the mean, or the sum, of each head's divergence from the student.",
       "",
       "loss.kl",
       of_kl,
       {{"mean", [](GradientVariant& v) { divergences_of_heads(v, false); }},
        {"sum", [](GradientVariant& v) { divergences_of_heads(v, true); }}},
       true}};
}

/// Row t of the teacher is that of row t + by, where its document has one.
GradientChange off_by(std::string name, Index by) {
  return taught(std::move(name), [by](const Config&, const auto& inner, Name at, Out u,
                                      const Attention& in, Keys kept) {
    inner(at, u, in, kept);
    const Tensor<double, 2> right = copy_of(u);
    for (Index t = 0; t < u.shape[0]; ++t) {
      const Index from = t + by;
      if (from < 0 || from >= u.shape[0]) continue;
      double sum = 0;
      for (const Index s : reference::keys_of(kept[t])) sum += right(from, s);
      if (sum == 0) continue;  // another document
      for (const Index s : reference::keys_of(kept[t])) u(t, s) = right(from, s);
    }
  });
}

/// The teacher of the layer before, on this layer's keys. A pass visits layers in any order; their
/// first visits are in the order of execution.
void of_layer_before(GradientVariant& v) {
  const auto seen = std::make_shared<std::map<std::string, Tensor<double, 2>>>();
  const auto before = std::make_shared<std::map<std::string, std::string>>();
  const auto newest = std::make_shared<std::string>();
  around(v.ops.attention_mass, anywhere(),
         [=](const auto& inner, Name at, Out u, const Attention& in, Keys kept) {
           const bool is_first_visit = !seen->contains(at);
           inner(at, u, in, is_first_visit ? Keys(in.chosen) : kept);
           if (is_first_visit) {
             (*before)[at] = newest->empty() ? at : *newest;
             (*seen)[at] = copy_of(u);
             *newest = at;
           }
           const Tensor<double, 2>& taken = seen->at(before->at(at));
           for (Index t = 0; t < u.shape[0]; ++t) {
             const std::vector<Index> keys = reference::keys_of(kept[t]);
             double mass = 0;
             for (const Index s : keys) mass += taken(t, s);
             for (Index s = 0; s < u.shape[1] && mass > 0; ++s) u(t, s) = 0;
             for (const Index s : keys)
               if (mass > 0) u(t, s) = taken(t, s);
           }
         });
}

GradientDefects places() {
  return {{432,
           "teacher-of-another-row",
           "Plausible: the teacher is a row off.",
           "",
           "loss.kl",
           of_kl,
           {off_by("of the row before", -1), off_by("of the row behind", 1)},
           true},
          {433,
           "teacher-of-another-layer",
           "Plausible: the teacher is that of the layer before.",
           "",
           "loss.kl",
           of_kl,
           {{"", of_layer_before}},
           true}};
}

}  // namespace

GradientDefects teacher_defects() {
  GradientDefects all;
  for (const GradientDefects& part : {scales(), mixtures(), sums(), places()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
