// Main attention backwards: the softmax, its scale, its keys.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "core/dtype.hpp"
#include "verify/defects/gradients/parts.hpp"

namespace dsa::verify {
namespace {

using Gradient = reference::MlaExpandedGradient<double>;
using Inputs = reference::MlaExpandedInputs<double>;

double bf16(double x) { return round_to(Dtype::bf16, x); }

/// d_z = p ( d_p - delta ), delta of the row by a rule.
GradientChange with_delta(std::string name, std::function<double(const AttentionRow&)> delta) {
  AttentionRules rules;
  rules.d_z = [delta = std::move(delta)](const AttentionRow& row) {
    const double mean = delta(row);
    std::vector<double> d_z;
    for (std::size_t i = 0; i < row.p.size(); ++i) d_z.push_back(row.p[i] * (row.d_p[i] - mean));
    return d_z;
  };
  return {std::move(name), [rules](GradientVariant& v) {
            v.backward.mla_expanded = [rules](Name, const Gradient& d, const Inputs& in,
                                              View<const double, 3> d_out) {
              attention_backward(d, in, d_out, rules);
            };
          }};
}

double none(const AttentionRow&) { return 0; }
double of_products_in_bf16(const AttentionRow& row) {
  double sum = 0;
  for (Index u = 0; u < row.U; ++u) sum += bf16(row.out[u] * row.d_out[u]);
  return sum;
}
double of_operands_in_bf16(const AttentionRow& row) {
  double sum = 0;
  for (Index u = 0; u < row.U; ++u) sum += bf16(row.out[u]) * bf16(row.d_out[u]);
  return sum;
}
double of_all_in_bf16(const AttentionRow& row) {
  double sum = 0;
  for (Index u = 0; u < row.U; ++u) sum += bf16(bf16(row.out[u]) * bf16(row.d_out[u]));
  return bf16(sum);
}
double exact_delta(const AttentionRow& row) {
  double sum = 0;
  for (Index u = 0; u < row.U; ++u) sum += row.out[u] * row.d_out[u];
  return sum;
}
/// A sum in bf16 throughout, as a tensor of that dtype keeps it.
double of_keys_in_bf16(const AttentionRow& row) {
  double sum = 0;
  for (std::size_t i = 0; i < row.p.size(); ++i) sum += bf16(row.p[i] * row.d_p[i]);
  return bf16(sum);
}
double unweighted(const AttentionRow& row) {
  double sum = 0;
  for (const double d : row.d_p) sum += d / static_cast<double>(row.d_p.size());
  return sum;
}

GradientDefects softmax() {
  return {
      {55,
       "softmax-without-delta",
       "The backward pass of attention's softmax lacks its sum, or takes another: d_z = p ( d_p - "
       "delta ).",
       repository("deepseek-ai/FlashMLA") + "/commit/c759027",
       "self_attn.q_rope",
       of_trunk,
       {with_delta("no delta", none), with_delta("delta is the plain mean of d_p", unweighted),
        with_delta("delta twice", [](const AttentionRow& row) { return 2 * exact_delta(row); }),
        with_delta("delta with the other sign",
                   [](const AttentionRow& row) { return -exact_delta(row); })}},
      {55,
       "softmax-delta-in-bf16",
       "Delta, the sum of O dO, is formed in bf16.",
       repository("deepseek-ai/FlashMLA") + "/commit/c759027",
       "self_attn.q_rope",
       of_trunk,
       {with_delta("its products", of_products_in_bf16),
        with_delta("O and dO", of_operands_in_bf16), with_delta("O, dO and all", of_all_in_bf16),
        with_delta("the sum alone", [](const AttentionRow& row) { return bf16(exact_delta(row)); }),
        with_delta("products of p and dP, and their sum", of_keys_in_bf16)}}};
}

/// The row is told other inputs.
GradientChange told(std::string name, std::function<void(const GradientVariant&, Inputs&)> change) {
  return {std::move(name), [change = std::move(change)](GradientVariant& v) {
            const auto right = std::make_shared<GradientVariant>(v);
            around(v.backward.mla_expanded, anywhere(),
                   [=](const auto& inner, Name at, const Gradient& d, Inputs in,
                       View<const double, 3> d_out) {
                     change(*right, in);
                     inner(at, d, in, d_out);
                   });
          }};
}

/// The four outputs times factors: q (nope, rope), k_nope, v, k_rope.
struct Factors {
  double q_nope = 1, q_rope = 1, k_nope = 1, v = 1, k_rope = 1;
};
GradientChange times(std::string name, std::function<Factors(const Config&)> factors) {
  return {std::move(name), [factors = std::move(factors)](GradientVariant& variant) {
            const Factors f = factors(variant.model.config);
            around(variant.backward.mla_expanded, anywhere(),
                   [f](const auto& inner, Name at, const Gradient& d, const Inputs& in,
                       View<const double, 3> d_out) {
                     Tensor<double, 3> q_nope(in.q_nope.shape), q_rope(in.q_rope.shape),
                         kv(in.kv.shape);
                     Tensor<double, 2> k_rope(in.k_rope.shape);
                     inner(at, {q_nope, q_rope, kv, k_rope}, in, d_out);
                     const Index B = in.q_nope.shape[2], width = in.kv.shape[2];
                     for (Index i = 0; i < kv.size(); ++i)
                       kv.data()[i] *= i % width < B ? f.k_nope : f.v;
                     add_times(d.d_q_nope, f.q_nope, q_nope);
                     add_times(d.d_q_rope, f.q_rope, q_rope);
                     add_times(d.d_kv, 1, kv);
                     add_times(d.d_k_rope, f.k_rope, k_rope);
                   });
          }};
}

/// The same factor of queries and keys, whatever is in front of the scores.
GradientChange scores_times(std::string name, std::function<double(const Config&)> factor) {
  return times(std::move(name), [factor = std::move(factor)](const Config& c) {
    const double f = factor(c);
    return Factors{f, f, f, 1, f};
  });
}

double softmax_mscale(const Config& c) { return mscale(c, c.rope.mscale_all_dim); }
double plain_scale(const Config& c) { return c.attention_scale(); }

GradientDefects scales() {
  const Applies with_mscale = [](const GradientVariant& v) {
    return of_trunk(v) && has_softmax_mscale(v.model.config);
  };
  const auto over_mscale = [](const Config& c) {
    return 1 / (softmax_mscale(c) * softmax_mscale(c));
  };
  return {
      {450,
       "attention-backward-scale",
       "Plausible: the softmax scale is left out, or taken twice, in attention's backward pass.",
       "",
       "self_attn.q_rope",
       of_trunk,
       {scores_times("left out", [](const Config& c) { return 1 / plain_scale(c); }),
        scores_times("twice", plain_scale),
        times("left out of the queries' gradient",
              [](const Config& c) {
                return Factors{1 / plain_scale(c), 1 / plain_scale(c), 1, 1, 1};
              }),
        times("left out of the keys' gradient",
              [](const Config& c) {
                return Factors{1, 1, 1 / plain_scale(c), 1, 1 / plain_scale(c)};
              })}},
      {62,
       "attention-backward-mscale",
       "YaRN's factor mscale^2 of the softmax scale is forgotten in attention's backward pass.",
       issue("onnxruntime/mobius", 548),
       "self_attn.q_rope",
       with_mscale,
       {scores_times("in front of the scores", over_mscale),
        told(
            "and where it computes the probabilities again",
            [=](const GradientVariant& v, Inputs& in) { in.scale *= over_mscale(v.model.config); }),
        scores_times("once instead of squared",
                     [](const Config& c) { return 1 / softmax_mscale(c); })}}};
}

GradientDefects parts() {
  return {
      {451,
       "attention-part-detached",
       "Plausible: a part of attention receives no gradient.",
       "",
       "self_attn.q_rope",
       of_trunk,
       {times("queries and keys: the probabilities are a constant",
              [](const Config&) {
                return Factors{0, 0, 0, 1, 0};
              }),
        times("values",
              [](const Config&) {
                return Factors{1, 1, 1, 0, 1};
              }),
        times("queries",
              [](const Config&) {
                return Factors{0, 0, 1, 1, 1};
              }),
        times("keys",
              [](const Config&) {
                return Factors{1, 1, 0, 1, 0};
              }),
        times("keys without rotation",
              [](const Config&) {
                return Factors{1, 1, 0, 1, 1};
              }),
        times("the rotated key",
              [](const Config&) {
                return Factors{1, 1, 1, 1, 0};
              }),
        times("rotated queries",
              [](const Config&) {
                return Factors{1, 0, 1, 1, 1};
              }),
        times("queries without rotation",
              [](const Config&) {
                return Factors{0, 1, 1, 1, 1};
              })}},
      {452,
       "shared-key-averaged",
       "Plausible: the gradient of the rotated key, which all heads share, is averaged over heads.",
       "",
       "self_attn.k_rope",
       of_trunk,
       {times("", [](const Config& c) {
         return Factors{1, 1, 1, 1, 1 / static_cast<double>(c.num_attention_heads)};
       })}}};
}

/// Selections by layer, as the forward pass makes them; and the layer before each.
struct Selections {
  std::map<std::string, Tensor<Index, 2>> of;
  std::map<std::string, std::string> before;
  std::string newest;
};
std::shared_ptr<Selections> remember_selections(GradientVariant& v) {
  const auto seen = std::make_shared<Selections>();
  around(v.ops.mla_expanded, anywhere(),
         [seen](const auto& inner, Name at, Out3 out, In3 q_nope, In3 q_rope, In3 kv, In k_rope,
                Keys chosen, double scale) {
           if (!seen->of.contains(at)) {
             seen->before[at] = seen->newest.empty() ? at : seen->newest;
             seen->newest = at;
             seen->of[at] = copy_of(chosen);
           }
           inner(at, out, q_nope, q_rope, kv, k_rope, chosen, scale);
         });
  return seen;
}

GradientChange selected_from(std::string name, bool newest) {
  return {std::move(name), [newest](GradientVariant& v) {
            const auto seen = remember_selections(v);
            around(v.backward.mla_expanded, anywhere(),
                   [=](const auto& inner, Name at, const Gradient& d, Inputs in,
                       View<const double, 3> d_out) {
                     const Tensor<Index, 2>& other =
                         seen->of.at(newest ? seen->newest : seen->before.at(at));
                     // The prediction block has a row less.
                     if (other.shape() == in.chosen.shape) in.chosen = other;
                     inner(at, d, in, d_out);
                   });
          }};
}

/// Every row reads the selection of the same row of the sequence before.
void select_from_other_sequence(GradientVariant& v) {
  const auto spans = spans_of(v);
  around(
      v.backward.mla_expanded, anywhere(),
      [=](const auto& inner, Name at, const Gradient& d, Inputs in, View<const double, 3> d_out) {
        Tensor<Index, 2> chosen = copy_of(in.chosen);
        for (std::size_t b = 0; b < spans.size(); ++b) {
          const auto& [first, end] = spans[b];
          const auto& [from, stop] = spans[(b + 1) % spans.size()];
          const Index rows = chosen.shape()[0],
                      n = std::min(std::min(end, rows) - first, std::min(stop, rows) - from);
          for (Index t = first; t < first + n; ++t)
            for (Index i = 0; i < chosen.shape()[1]; ++i) {
              const Index s = in.chosen(from + t - first, i);
              chosen(t, i) = s < 0 ? -1 : s - from + first;
            }
        }
        in.chosen = chosen;
        inner(at, d, in, d_out);
      });
}

GradientDefects selections() {
  const Applies selects = [](const GradientVariant& v) {
    return of_trunk(v) && v.model.config.indexer && !is_dense_stage(v);
  };
  const Applies of_several = [=](const GradientVariant& v) {
    return selects(v) && v.sequences.size() > 1;
  };
  GradientChange causal{
      "", [](GradientVariant& v) {
        around(v.backward.mla_expanded, anywhere(),
               [documents = v.sequence.documents](const auto& inner, Name at, const Gradient& d,
                                                  Inputs in, View<const double, 3> d_out) {
                 const auto rows = static_cast<std::size_t>(in.q_nope.shape[0]);
                 const Tensor<Index, 2> keys = all_visible(std::span(documents).first(rows));
                 in.chosen = keys;
                 inner(at, d, in, d_out);
               });
      }};
  return {{59,
           "backward-knows-causal-mask-only",
           "Attention's backward pass knows the causal mask only: it runs over every visible key.",
           repository("NVIDIA/Megatron-LM"),
           "self_attn.q_rope",
           selects,
           {causal}},
          {105,
           "backward-selection-overwritten",
           "Attention's backward pass reads another layer's selection: what the forward pass kept "
           "is overwritten.",
           issue("NVIDIA/Megatron-LM", 6793),
           "self_attn.q_rope",
           selects,
           {selected_from("the layer's before", false), selected_from("the last layer's", true)}},
          {105,
           "backward-selection-of-other-sequence",
           "Attention's backward pass reads the selection of another micro-batch.",
           issue("NVIDIA/Megatron-LM", 6793),
           "self_attn.q_rope",
           of_several,
           {{"", select_from_other_sequence}}}};
}

}  // namespace

GradientDefects attention_gradient_defects() {
  GradientDefects all;
  for (const GradientDefects& part : {softmax(), scales(), parts(), selections()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
