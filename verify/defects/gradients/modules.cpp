// Modules backwards: RMSNorm, the rotation, linear modules, the embedding.
#include <algorithm>
#include <cmath>
#include <set>

#include "reference/ops/rope.hpp"
#include "verify/defects/gradients/parts.hpp"

namespace dsa::verify {
namespace {

using reference::LinearGradient;

/// d_x of a row from d_n = g d_y, n = x / r and mean(d_n n).
using NormRule = std::function<double(double d_n, double n, double mean, double r)>;
GradientChange norm_input(std::string name, Where where, NormRule rule, bool with_gain = true) {
  return {std::move(name), [=](GradientVariant& v) {
            around(v.backward.rmsnorm, where,
                   [=](const auto& inner, Name at, Out d_x, View<double, 1> d_g, In x,
                       const Parameter& g, In d_y, double eps) {
                     Tensor<double, 2> unused(d_x.shape);
                     inner(at, unused, d_g, x, g, d_y, eps);
                     const std::vector<double> gain = read_all<double>(g);
                     const Index C = x.shape[1];
                     for (Index t = 0; t < x.shape[0]; ++t) {
                       double squares = 0, mean = 0;
                       for (const double value : x[t]) squares += value * value;
                       const double r = std::sqrt(squares / static_cast<double>(C) + eps);
                       const auto d_n = [&](Index c) {
                         return (with_gain ? gain[static_cast<std::size_t>(c)] : 1) * d_y(t, c);
                       };
                       for (Index c = 0; c < C; ++c)
                         mean += d_n(c) * x(t, c) / r / static_cast<double>(C);
                       for (Index c = 0; c < C; ++c)
                         d_x(t, c) += rule(d_n(c), x(t, c) / r, mean, r);
                     }
                   });
          }};
}

double without_mean(double d_n, double, double, double r) { return d_n / r; }
double plain(double d_n, double n, double mean, double r) { return (d_n - n * mean) / r; }
double mean_once_more(double d_n, double n, double mean, double r) {
  return (d_n - n * mean / r) / r;
}
double mean_added(double d_n, double n, double mean, double r) { return (d_n + n * mean) / r; }
double without_rms(double d_n, double n, double mean, double) { return d_n - n * mean; }

/// The gain's gradient of inputs that are not normalised.
void gain_of_raw_input(GradientVariant& v) {
  around(v.backward.rmsnorm, anywhere(),
         [](const auto& inner, Name at, Out d_x, View<double, 1> d_g, In x, const Parameter& g,
            In d_y, double eps) {
           Tensor<double, 1> unused(d_g.shape);
           inner(at, d_x, unused, x, g, d_y, eps);
           for (Index t = 0; t < x.shape[0]; ++t)
             for (Index c = 0; c < x.shape[1]; ++c) d_g(c) += d_y(t, c) * x(t, c);
         });
}

GradientDefects norms() {
  const Where blocks = [](Name name) {
    return name.ends_with("input_layernorm") || name.ends_with("post_attention_layernorm");
  };
  const Where latents = [](Name name) {
    return name.ends_with("q_a_layernorm") || name.ends_with("kv_a_layernorm");
  };
  return {{460,
           "rms-without-mean-term",
           "Plausible: RMSNorm's backward pass treats 1/rms as a constant.",
           "",
           "model.norm",
           of_trunk,
           {norm_input("every norm", anywhere(), without_mean),
            norm_input("norms of blocks", blocks, without_mean),
            norm_input("norms of latents", latents, without_mean),
            norm_input("q_a_layernorm", ends("q_a_layernorm"), without_mean),
            norm_input("kv_a_layernorm", ends("kv_a_layernorm"), without_mean),
            norm_input("input_layernorm", ends("input_layernorm"), without_mean),
            norm_input("post_attention_layernorm", ends("post_attention_layernorm"), without_mean),
            norm_input("model.norm", ends("model.norm"), without_mean)}},
          {461,
           "rms-backward",
           "Plausible: RMSNorm's backward pass has another formula.",
           "",
           "model.norm",
           of_trunk,
           {norm_input("the gain is left out", anywhere(), plain, false),
            norm_input("of latents, the gain is left out", latents, plain, false),
            norm_input("the mean term has the other sign", anywhere(), mean_added),
            norm_input("the mean term is divided by rms once more", anywhere(), mean_once_more),
            norm_input("the rms is left out", anywhere(), without_rms),
            {"the gain learns from inputs that are not normalised", gain_of_raw_input}}}};
}

GradientChange turned(std::string name, std::vector<std::string> which, bool same_way) {
  return {std::move(name), [=](GradientVariant& v) {
            for (const std::string& end : which)
              around(
                  v.backward.rope, ends("self_attn." + end),
                  [=](const auto&, Name, View<double, 3> d_x, In cos, In sin, RopeLayout layout) {
                    if (same_way) reference::rope<double>(d_x, cos, sin, layout);
                  });
          }};
}

void turn_other_pairs(GradientVariant& v) {
  const Where main = [](Name name) {
    return name.ends_with("self_attn.q_rope") || name.ends_with("self_attn.k_rope");
  };
  around(v.backward.rope, main,
         [](const auto& inner, Name name, View<double, 3> d_x, In cos, In sin, RopeLayout layout) {
           inner(name, d_x, cos, sin,
                 layout == RopeLayout::half ? RopeLayout::interleaved : RopeLayout::half);
         });
}

GradientDefects rotations() {
  return {{462,
           "rope-backward",
           "Plausible: the rotation is turned the same way backwards, by +theta for -theta, or not "
           "at all.",
           "",
           "self_attn.q_b_proj",
           of_trunk,
           {turned("the same way", {"q_rope", "k_rope"}, true),
            turned("queries the same way", {"q_rope"}, true),
            turned("keys the same way", {"k_rope"}, true),
            turned("not at all", {"q_rope", "k_rope"}, false),
            turned("queries not at all", {"q_rope"}, false),
            turned("keys not at all", {"k_rope"}, false),
            {"by the other pairs of channels", turn_other_pairs}}}};
}

/// All linear modules of a variant, whatever row they have.
template <class F>
void around_linears(GradientVariant& v, const Where& where, F f) {
  around(v.backward.linear, where, f);
  around(v.backward.router_logits, where, f);
  around(v.backward.index_head_weights, where, f);
}

GradientChange no_input_gradient(std::string name, Where where) {
  return {std::move(name), [=](GradientVariant& v) {
            around_linears(v, where,
                           [](const auto& inner, Name at, Out, LinearGradient<double> d, In x,
                              const Linear& w, In d_y) { inner(at, Out{}, d, x, w, d_y); });
          }};
}

/// Weights learn from some rows of d_y alone.
GradientChange weights_learn_from(std::string name,
                                  std::function<bool(const GradientVariant&, Index t)> learns) {
  return {std::move(name), [=](GradientVariant& v) {
            std::vector<bool> counts;
            for (Index t = 0; t < v.sequence.size(); ++t) counts.push_back(learns(v, t));
            around_linears(v, anywhere(),
                           [counts](const auto& inner, Name at, Out d_x, LinearGradient<double> d,
                                    In x, const Linear& w, In d_y) {
                             if (d_x.data) inner(at, d_x, {}, x, w, d_y);
                             Tensor<double, 2> some = copy_of(d_y);
                             const bool is_whole =
                                 d_y.shape[0] == static_cast<Index>(counts.size());
                             for (Index t = 0; is_whole && t < d_y.shape[0]; ++t)
                               if (!counts[static_cast<std::size_t>(t)])
                                 for (double& value : some.view()[t]) value = 0;
                             inner(at, Out{}, d, x, w, some.view());
                           });
          }};
}

GradientDefects linears() {
  GradientDefect stale{60,
                       "linear-input-gradient-zero",
                       "A linear module passes no gradient on to its input: its transposed copy "
                       "is stale.",
                       issue("modelscope/mcore-bridge", 125),
                       "self_attn.o_proj",
                       of_trunk,
                       {}};
  for (const char* name : {"lm_head", "o_proj", "kv_b_proj", "kv_a_proj_with_mqa", "q_b_proj",
                           "q_a_proj", "q_proj", "down_proj", "up_proj", "gate_proj"})
    stale.variants.push_back(no_input_gradient(name, ends(name)));
  stale.variants.push_back(no_input_gradient("the router", ends("gate.logits")));
  stale.variants.push_back(no_input_gradient("experts", contains("mlp.experts.")));
  stale.variants.push_back(no_input_gradient("the shared expert", contains("mlp.shared_experts.")));
  const auto in_first = [](const GradientVariant& v, Index t) {
    return t < v.sequences.front().size();
  };
  const auto in_last = [](const GradientVariant& v, Index t) {
    return t >= v.sequence.size() - v.sequences.back().size();
  };
  return {stale,
          {463,
           "weights-learn-from-one-sequence",
           "Plausible: the weights of linear modules learn from one sequence of the batch only.",
           "",
           "self_attn.o_proj",
           [](const GradientVariant& v) { return v.sequences.size() > 1; },
           {weights_learn_from("the first", in_first), weights_learn_from("the last", in_last)}}};
}

/// Rows of a token that occurs again are lost: the last, or the first, occurrence stays.
GradientChange one_occurrence(std::string name, bool last) {
  return {std::move(name), [last](GradientVariant& v) {
            around(v.backward.embed, anywhere(),
                   [last](const auto& inner, Name at, Out d_table, std::span<const Token> tokens,
                          In d_x) {
                     Tensor<double, 2> some = copy_of(d_x);
                     std::set<Token> seen;
                     const Index T = static_cast<Index>(tokens.size());
                     for (Index i = 0; i < T; ++i) {
                       const Index t = last ? T - 1 - i : i;
                       if (!seen.insert(tokens[static_cast<std::size_t>(t)]).second)
                         for (double& value : some.view()[t]) value = 0;
                     }
                     inner(at, d_table, tokens, some.view());
                   });
          }};
}

GradientChange not_given(std::string name, Where parameter) {
  return {std::move(name), [=](GradientVariant& v) {
            v.handed_out = [=](const std::string& at, View<double, 2> gradient) {
              if (parameter(at)) std::fill(gradient.begin(), gradient.end(), 0.0);
            };
          }};
}

GradientDefects embedding() {
  const Applies tied = [](const GradientVariant& v) {
    return of_trunk(v) && v.model.config.tie_word_embeddings;
  };
  return {
      {464,
       "embedding-gradient",
       "Plausible: the embedding of a token that occurs more than once learns from one occurrence, "
       "or from "
       "none.",
       "",
       "model.embed_tokens",
       of_trunk,
       {one_occurrence("the last", true), one_occurrence("the first", false),
        not_given("none", ends("embed_tokens.weight"))}},
      {465,
       "tied-head-gradient",
       "Plausible: the head shares the embedding's matrix, and one of the two gives it no "
       "gradient.",
       "",
       "lm_head",
       tied,
       {{"the head",
         [](GradientVariant& v) {
           around(v.backward.linear, ends("lm_head"),
                  [](const auto& inner, Name at, Out d_x, LinearGradient<double>, In x,
                     const Linear& w, In d_y) { inner(at, d_x, {}, x, w, d_y); });
         }},
        {"the embedding", [](GradientVariant& v) { leave_out(v.backward.embed, anywhere()); }}}}};
}

}  // namespace

GradientDefects module_defects() {
  GradientDefects all;
  for (const GradientDefects& part : {norms(), rotations(), linears(), embedding()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
