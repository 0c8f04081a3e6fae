// Which experts a token goes to, with what weight, and what becomes of the shared ones.
#include "reference/ops/router.hpp"

#include <limits>

#include "core/dtype.hpp"
#include "verify/defects/alter.hpp"

namespace dsa::verify {
namespace {

const std::string choice = "mlp.gate.choice", groups = "mlp.gate.group_scores",
                  experts = "mlp.gate.experts", gate_weights = "mlp.gate.weights";

/// What router_choice saw and made.
struct Routed {
  Tensor<double, 2> s, choice;  // (T, E)  without and with the bias
  std::vector<double> bias;     // (E) or empty
};

Memory<Routed> remember_choice(Variant& altered) {
  Memory<Routed> memory;
  around(altered.ops.router_choice, anywhere(),
         [memory](const auto& inner, Name name, Out y, In s, const Parameter& bias) {
           inner(name, y, s, bias);
           memory.put({copy_of(s), copy_of(y),
                       bias.present() ? read_all<double>(bias) : std::vector<double>()});
         });
  return memory;
}

/// Weights from f(what the choice was made of) instead of the unbiased scores.
void weights_from(Variant& altered, std::function<Tensor<double, 2>(const Routed&)> f) {
  const Memory<Routed> routed = remember_choice(altered);
  around(altered.ops.router_weights, anywhere(),
         [=](const auto& inner, Name name, Out w, In, Keys chosen, bool normalise, double scale) {
           inner(name, w, f(routed.get()), chosen, normalise, scale);
         });
}

/// biased - bias, in fp32: digits of s are lost where the bias is large.
Tensor<double, 2> by_subtraction(const Routed& routed) {
  Tensor<double, 2> s = routed.choice;
  if (routed.bias.empty()) return s;  // another defect of the same pair left it out
  for (Index i = 0; i < s.size(); ++i) {
    const double bias = routed.bias[static_cast<std::size_t>(i % s.shape()[1])];
    s.data()[i] = round_to(Dtype::f32, round_to(Dtype::f32, s.data()[i]) - bias);
  }
  return s;
}

/// f(group's choices) for every group.
DefectVariant group_score(std::string name, std::function<double(std::vector<double>)> f) {
  return {std::move(name), [f = std::move(f)](Variant& altered) {
            around(altered.ops.router_group_scores, anywhere(),
                   [f](const auto&, Name, Out scores, In choices, Router::Groups) {
                     const Index G = scores.shape[1], size = choices.shape[1] / G;
                     for (Index t = 0; t < scores.shape[0]; ++t)
                       for (Index g = 0; g < G; ++g) {
                         const double* at = choices[t].data + g * size;
                         scores(t, g) = f({at, at + size});
                       }
                   });
          }};
}

DefectVariant best_of_group(std::string name, std::function<Index(const Config&)> how_many) {
  return {std::move(name), [how_many](Variant& altered) {
            const Index n = how_many(altered.model.config);
            group_score("", [n](std::vector<double> s) {
              std::sort(s.begin(), s.end(), std::greater<>());
              double sum = 0;
              for (Index i = 0; i < std::min<Index>(n, static_cast<Index>(s.size())); ++i)
                sum += s[static_cast<std::size_t>(i)];
              return sum;
            }).apply(altered);
          }};
}

void groups_unbiased(Variant& altered) {
  const Memory<Routed> routed = remember_choice(altered);
  around(altered.ops.router_group_scores, anywhere(),
         [routed](const auto& inner, Name name, Out scores, In, Router::Groups rule) {
           inner(name, scores, routed.get().s, rule);
         });
}

std::vector<DefectVariant> group_rules() {
  return {config_variant("maximum", [](Config& c) { c.router.groups = Router::Groups::maximum; }),
          best_of_group("sum of all", [](const Config& c) { return c.n_routed_experts; }),
          best_of_group("sum of best k/topk_group",
                        [](const Config& c) { return c.num_experts_per_tok / c.topk_group; }),
          {"unbiased", groups_unbiased}};
}

/// The experts are chosen by f(choices as they came, choices with groups dropped).
void experts_by(Variant& altered, std::function<Tensor<double, 2>(const Routed&, In dropped)> f) {
  const Memory<Routed> routed = remember_choice(altered);
  around(altered.ops.topk_select, ends(experts),
         [=](const auto& inner, Name name, Chosen chosen, In dropped) {
           inner(name, chosen, f(routed.get(), dropped));
         });
}

void no_group_limit(Variant& altered) {
  experts_by(altered, [](const Routed& routed, In) { return routed.choice; });
}

/// Kept groups compete without the bias.
void experts_unbiased(Variant& altered) {
  experts_by(altered, [](const Routed& routed, In dropped) {
    Tensor<double, 2> by = copy_of(dropped);
    for (Index i = 0; i < by.size(); ++i)
      if (by.data()[i] == routed.choice.data()[i]) by.data()[i] = routed.s.data()[i];
    return by;
  });
}

/// Groups of E / num_experts_per_tok experts.
void group_size_by_topk(Variant& altered) {
  const Config c = altered.model.config;
  const auto select = altered.ops.topk_select;
  experts_by(altered, [c, select](const Routed& routed, In) {
    Tensor<double, 2> by = routed.choice;
    const Index T = by.shape()[0], E = by.shape()[1], size = E / c.num_experts_per_tok,
                G = E / size;
    Tensor<double, 2> whole({T, G * size}), scores({T, G});
    for (Index t = 0; t < T; ++t) std::copy_n(by.view()[t].data, G * size, whole.view()[t].data);
    reference::router_group_scores<double>(scores, whole, c.router.groups);
    Tensor<Index, 2> kept({T, std::min(c.topk_group, G)});
    select("", kept, scores);
    for (Index t = 0; t < T; ++t)
      for (Index e = 0; e < E; ++e) {
        const auto row = kept.view()[t];
        if (std::find(row.begin(), row.end(), e / size) == row.end())
          by(t, e) = -std::numeric_limits<double>::infinity();
      }
    return by;
  });
}

void logits_in_bf16(Variant& altered) {
  around(altered.ops.router_logits, anywhere(),
         [](const auto& inner, Name name, Out z, In x, const Linear& gate) {
           Tensor<double, 2> x16 = copy_of(x);
           for (double& value : x16) value = round_to(Dtype::bf16, value);
           Linear gate16 = gate;
           gate16.weight.loaded_as = Dtype::bf16;
           inner(name, z, x16, gate16);
           for (double& value : z) value = round_to(Dtype::bf16, value);
         });
}

void bias_in_bf16(Variant& altered) {
  around(altered.ops.router_choice, anywhere(),
         [](const auto& inner, Name name, Out y, In s, const Parameter& bias) {
           Parameter bias16 = bias;
           bias16.loaded_as = Dtype::bf16;
           inner(name, y, s, bias16);
         });
}

void bias_ignored(Variant& altered) {
  around(altered.ops.router_choice, anywhere(),
         [](const auto& inner, Name name, Out y, In s, const Parameter&) {
           inner(name, y, s, Parameter());
         });
}

/// The right weights w (k) of a token, rewritten.
void weights_rewritten(Variant& altered, void (*f)(View<double, 1>)) {
  around(altered.ops.router_weights, anywhere(),
         [f](const auto& inner, Name name, Out w, auto&&... rest) {
           inner(name, w, rest...);
           for (Index t = 0; t < w.shape[0]; ++t) f(w[t]);
         });
}

void first_only(View<double, 1> w) { std::fill(w.begin() + 1, w.end(), 0.0); }

void all_alike(View<double, 1> w) {
  double mean = 0;
  for (double value : w) mean += value / static_cast<double>(w.shape[0]);
  std::fill(w.begin(), w.end(), mean);
}

DefectVariant factor(std::string name, double (*of)(double)) {
  return config_variant(std::move(name),
                        [of](Config& c) { c.routed_scaling_factor = of(c.routed_scaling_factor); });
}

bool biased(const Config& c) { return has_router(c) && c.router.has_correction_bias; }
bool groups_by(const Config& c, Router::Groups rule) {
  return has_groups(c) && c.router.groups == rule;
}
bool scaled(const Config& c) { return has_router(c) && c.routed_scaling_factor != 1; }

std::vector<Defect> of_groups() {
  const auto by_two = [](const Config& c) { return groups_by(c, Router::Groups::sum_of_two); };
  const auto by_max = [](const Config& c) { return groups_by(c, Router::Groups::maximum); };
  return {
      {76,
       "router-dropped-groups-score",
       "Experts of dropped groups score 0 instead of -inf (or the reverse), which wins where the "
       "biased scores of kept ones are negative.",
       issue("deepseek-ai/DeepSeek-V3", 741),
       experts,
       has_groups,
       {config_variant("",
                       [](Config& c) {
                         double& score = c.router.dropped_group_score;
                         score = score == 0 ? -std::numeric_limits<double>::infinity() : 0;
                       })}},
      {77, "router-group-score",
       "A group is scored by its best expert, by all of them, or without the bias, instead of by "
       "the sum of its two best.",
       issue("vllm-project/vllm", 13474), groups, by_two, group_rules()},
      {77,
       "router-group-score-of-two",
       "A group of a V2 model is scored by its two best experts instead of its best.",
       issue("ikawrakow/ik_llama.cpp", 836),
       groups,
       by_max,
       {config_variant("", [](Config& c) { c.router.groups = Router::Groups::sum_of_two; })}},
      {78,
       "router-no-group-limit",
       "All experts compete; no group is dropped.",
       issue("NVIDIA/TensorRT-Model-Connect", 662),
       experts,
       has_groups,
       {{"", no_group_limit}}},
      {78,
       "router-group-size",
       "A group holds E / num_experts_per_tok experts, not E / n_group.",
       repository("AI-Hypercomputer/maxtext") + "/commit/c92eeddf8",
       experts,
       [](const Config& c) {
         const Index k = c.num_experts_per_tok, kept = c.topk_group * (c.n_routed_experts / k);
         return has_groups(c) && c.n_group != k && kept >= k;  // enough experts are left to choose
       },
       {{"", group_size_by_topk}}},
  };
}

std::vector<Defect> of_choice() {
  const auto sigmoid = [](const Config& c) {
    return has_router(c) && c.router.scoring == Router::Scoring::sigmoid;
  };
  return {
      {78,
       "router-softmax",
       "The router's scores are a softmax over experts, not sigmoids.",
       issue("NVIDIA/TensorRT-Model-Connect", 662),
       choice,
       sigmoid,
       {config_variant("", [](Config& c) { c.router.scoring = Router::Scoring::softmax; })}},
      {78,
       "router-softmax-of-all",
       "The router's scores are a softmax over experts, all of which compete.",
       issue("NVIDIA/TensorRT-Model-Connect", 662),
       choice,
       [](const Config& c) {
         return has_groups(c) && c.router.scoring == Router::Scoring::sigmoid;
       },
       {{"",
         [](Variant& a) {
           a.model.config.router.scoring = Router::Scoring::softmax;
           no_group_limit(a);
         }}}},
      {82,
       "router-logits-bf16",
       "The router's logits are computed in bf16 instead of fp32.",
       issue("huggingface/transformers", 42580),
       "mlp.gate.logits",
       has_router,
       {{"", logits_in_bf16}}},
      {82,
       "router-bias-bf16",
       "The router's correction bias is kept in bf16 instead of fp32.",
       issue("vllm-project/vllm", 14027),
       choice,
       biased,
       {{"", bias_in_bf16}}},
      {222,
       "router-bias-ignored",
       "Plausible: the correction bias is not used at all.",
       "",
       choice,
       biased,
       {{"", bias_ignored}}},
      {222,
       "router-experts-unbiased",
       "Plausible: the correction bias takes part in the choice of groups but not of experts.",
       "",
       experts,
       biased,
       {{"", experts_unbiased}}},
  };
}

std::vector<Defect> of_weights() {
  return {
      {75,
       "router-bias-in-weights",
       "The correction bias leaks into the experts' weights.",
       issue("vllm-project/vllm", 11971),
       gate_weights,
       biased,
       {{"", [](Variant& a) { weights_from(a, [](const Routed& r) { return r.choice; }); }}}},
      {79,
       "router-scaling-factor",
       "routed_scaling_factor is missing or applied twice.",
       issue("vllm-project/vllm", 24119),
       gate_weights,
       scaled,
       {factor("missing", [](double) { return 1.0; }),
        factor("twice", [](double f) { return f * f; })},
       Constant{"routed_scaling_factor", between(0.05, 20), false,
                [](Variant& a, double f) { a.model.config.routed_scaling_factor = f; }}},
      {80,
       "router-weights-not-normalised",
       "norm_topk_prob is ignored: weights do not sum to 1.",
       issue("pytorch/torchtitan", 1418),
       gate_weights,
       [](const Config& c) { return has_router(c) && c.router.norm_topk_prob; },
       {config_variant("", [](Config& c) { c.router.norm_topk_prob = false; })}},
      {80,
       "router-weights-normalised",
       "Weights are normalised to 1 where norm_topk_prob is false: the mirror image.",
       issue("pytorch/torchtitan", 1418),
       gate_weights,
       [](const Config& c) { return has_router(c) && !c.router.norm_topk_prob; },
       {config_variant("", [](Config& c) { c.router.norm_topk_prob = true; })}},
      {81,
       "router-weights-by-subtraction",
       "Weights are recovered in fp32 as biased score minus bias, which cancels digits.",
       issue("flashinfer-ai/flashinfer", 3875),
       gate_weights,
       biased,
       {{"", [](Variant& a) { weights_from(a, by_subtraction); }}}},
      {307,
       "router-first-expert-only",
       "Plausible: only the best expert's weight is used.",
       "",
       gate_weights,
       has_router,
       {{"", [](Variant& a) { weights_rewritten(a, first_only); }}}},
      {308,
       "router-weights-alike",
       "Plausible: the chosen experts all get the same weight.",
       "",
       gate_weights,
       has_router,
       {{"", [](Variant& a) { weights_rewritten(a, all_alike); }}}},
  };
}

}  // namespace

std::vector<Defect> router_defects() {
  std::vector<Defect> all;
  for (const auto& part : {of_groups(), of_choice(), of_weights()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
