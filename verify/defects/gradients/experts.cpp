// Mixture of experts backwards: the router's weights, the experts' answers, SwiGLU.
#include <algorithm>
#include <cmath>

#include "verify/defects/gradients/parts.hpp"

namespace dsa::verify {
namespace {

using reference::AccumulateGradient;

/// The row that leads from the mixing weights to the router's scores, by a rule:
/// d_s[expert] from one row's d_weights, scores s, their divisor and the scale.
struct MixingRow {
  const std::vector<double>&d, &s;
  double divisor, along, scale;  // along: sum_j d_j s_j / divisor
};
using MixingRule = std::function<double(const MixingRow&, std::size_t i)>;
GradientChange mixing(std::string name, MixingRule rule) {
  return {std::move(name), [rule = std::move(rule)](GradientVariant& v) {
            v.backward.router_weights = [rule](Name, Out d_s, In s, Keys experts, In d_weights,
                                               bool normalise, double scale) {
              for (Index t = 0; t < s.shape[0]; ++t) {
                std::vector<double> d, mine;
                double sum = 0, along = 0;
                for (Index i = 0; i < experts.shape[1]; ++i) {
                  d.push_back(d_weights(t, i));
                  mine.push_back(s(t, experts(t, i)));
                  sum += mine.back();
                }
                const double divisor = normalise ? sum + 1e-20 : 1;
                for (std::size_t i = 0; i < d.size() && normalise; ++i)
                  along += d[i] * mine[i] / divisor;
                const MixingRow row{d, mine, divisor, along, scale};
                for (std::size_t i = 0; i < d.size(); ++i)
                  d_s(t, experts(t, static_cast<Index>(i))) += rule(row, i);
              }
            };
          }};
}

double right(const MixingRow& r, std::size_t i) { return r.scale * (r.d[i] - r.along) / r.divisor; }

GradientDefects routing_weights() {
  const Applies normalises = [](const GradientVariant& v) {
    return has_experts(v) && v.model.config.router.norm_topk_prob;
  };
  const Applies scales = [](const GradientVariant& v) {
    return has_experts(v) && v.model.config.routed_scaling_factor != 1;
  };
  return {
      {470,
       "router-detached",
       "Plausible: the routing weights are detached: the router learns nothing.",
       "",
       "mlp.gate.weights",
       has_experts,
       {{"", [](GradientVariant& v) { leave_out(v.backward.router_weights, anywhere()); }}}},
      {471,
       "router-norm-constant",
       "Plausible: the backward pass treats the sum that normalises the routing weights as a "
       "constant.",
       "",
       "mlp.gate.weights",
       normalises,
       {mixing("", [](const MixingRow& r, std::size_t i) { return r.scale * r.d[i] / r.divisor; }),
        mixing("and leaves it out",
               [](const MixingRow& r, std::size_t i) { return r.scale * r.d[i]; }),
        mixing("left out in front of the whole",
               [](const MixingRow& r, std::size_t i) { return r.divisor * right(r, i); })}},
      {79,
       "router-scale-backward",
       "routed_scaling_factor is left out of the routing weights' backward pass, or taken twice.",
       issue("vllm-project/vllm", 24119),
       "mlp.gate.weights",
       scales,
       {mixing("left out", [](const MixingRow& r, std::size_t i) { return right(r, i) / r.scale; }),
        mixing("twice", [](const MixingRow& r, std::size_t i) { return right(r, i) * r.scale; })}},
      {472,
       "router-first-expert-learns",
       "Plausible: the routing weight of the first expert alone passes a gradient on.",
       "",
       "mlp.gate.weights",
       has_experts,
       {mixing("", [](const MixingRow& r, std::size_t i) { return i == 0 ? right(r, i) : 0; })}}};
}

GradientChange scoring(std::string name, std::function<double(double s, double d, double sum)> f) {
  return {std::move(name), [f = std::move(f)](GradientVariant& v) {
            v.backward.router_scores = [f](Name, Out d_z, In s, In d_s, Router::Scoring) {
              for (Index t = 0; t < s.shape[0]; ++t) {
                double sum = 0;
                for (Index e = 0; e < s.shape[1]; ++e) sum += d_s(t, e) * s(t, e);
                for (Index e = 0; e < s.shape[1]; ++e) d_z(t, e) += f(s(t, e), d_s(t, e), sum);
              }
            };
          }};
}

GradientDefects routing_scores() {
  const Applies is_sigmoid = [](const GradientVariant& v) {
    return has_experts(v) && v.model.config.router.scoring == Router::Scoring::sigmoid;
  };
  const Applies is_softmax = [](const GradientVariant& v) {
    return has_experts(v) && v.model.config.router.scoring == Router::Scoring::softmax;
  };
  return {{473,
           "router-sigmoid-backward",
           "Plausible: the router's sigmoid has another derivative than s (1 - s).",
           "",
           "mlp.gate.logits",
           is_sigmoid,
           {scoring("1", [](double, double d, double) { return d; }),
            scoring("s", [](double s, double d, double) { return d * s; }),
            scoring("1 - s", [](double s, double d, double) { return d * (1 - s); }),
            scoring("that of a softmax",
                    [](double s, double d, double sum) { return s * (d - sum); })}},
          {474,
           "router-softmax-backward",
           "Plausible: the router's softmax has another derivative than its own.",
           "",
           "mlp.gate.logits",
           is_softmax,
           {scoring("1", [](double, double d, double) { return d; }),
            scoring("s, without the sum", [](double s, double d, double) { return s * d; }),
            scoring("s (1 - s)", [](double s, double d, double) { return d * s * (1 - s); })}}};
}

/// An expert's answers and weights, told with other mixing weights.
GradientChange answers(std::string name, std::function<double(const Config&, double w)> weight) {
  return {std::move(name), [=](GradientVariant& v) {
            around(v.backward.accumulate, anywhere(),
                   [=, config = v.model.config](
                       const auto& inner, Name at, AccumulateGradient<double> d, In x,
                       std::span<const Index> rows, std::span<const double> w, In d_y) {
                     std::vector<double> told;
                     for (const double one : w) told.push_back(weight(config, one));
                     inner(at, d, x, rows, told, d_y);
                   });
          }};
}

/// Some experts learn nothing and pass nothing on.
GradientChange silent(std::string name, std::function<bool(Name)> is_silent) {
  return {std::move(name), [=](GradientVariant& v) {
            around(v.backward.accumulate, is_silent,
                   [](const auto& inner, Name at, AccumulateGradient<double> d, auto&&... rest) {
                     Tensor<double, 2> unused(d.d_x.shape);
                     inner(at, AccumulateGradient<double>{unused, d.d_weights}, rest...);
                   });
          }};
}

GradientDefects experts() {
  const Applies shares = [](const GradientVariant& v) {
    return has_experts(v) && v.model.config.n_shared_experts > 0;
  };
  return {{475,
           "expert-answers-not-weighted",
           "Plausible: the experts' backward pass lacks the routing weight, or a factor of it.",
           "",
           "mlp.experts",
           has_experts,
           {answers("the weight", [](const Config&, double) { return 1.0; }),
            answers("routed_scaling_factor",
                    [](const Config& c, double w) { return w / c.routed_scaling_factor; }),
            answers("it is there twice", [](const Config&, double w) { return w * w; }),
            answers("routed_scaling_factor is there twice",
                    [](const Config& c, double w) { return w * c.routed_scaling_factor; })}},
          {476,
           "experts-detached",
           "Plausible: the routed experts receive no gradient.",
           "",
           "mlp.experts",
           has_experts,
           {silent("all of them", anywhere()), silent("expert 0", ends("mlp.experts.0"))}},
          {477,
           "shared-expert-detached",
           "Plausible: the shared expert receives no gradient.",
           "",
           "mlp.shared_experts",
           shares,
           {{"", [](GradientVariant& v) { leave_out(v.backward.add, ends(".mlp")); }}}}};
}

using Slope = std::function<double(double z, double a)>;
GradientChange swiglu(std::string name, Slope of_gate, Slope of_up) {
  return {std::move(name), [=](GradientVariant& v) {
            v.backward.swiglu = [=](Name, Out d_gate, Out d_up, In gate, In up, In d_h) {
              for (Index i = 0; i < gate.size(); ++i) {
                const double z = gate.data[i], a = 1 / (1 + std::exp(-z));
                d_up.data[i] += d_h.data[i] * of_up(z, a);
                d_gate.data[i] += d_h.data[i] * up.data[i] * of_gate(z, a);
              }
            };
          }};
}

GradientDefects activation() {
  const Slope silu = [](double z, double a) { return z * a; };
  const Slope slope = [](double z, double a) { return a * (1 + z * (1 - a)); };
  const Slope nothing = [](double, double) { return 0.0; };
  GradientChange swapped{"gate and up exchanged", [](GradientVariant& v) {
                           around(v.backward.swiglu, anywhere(),
                                  [](const auto& inner, Name at, Out d_gate, Out d_up, In gate,
                                     In up, In d_h) { inner(at, d_up, d_gate, gate, up, d_h); });
                         }};
  return {
      {478,
       "swiglu-backward",
       "Plausible: SwiGLU's backward pass has another derivative.",
       "",
       "mlp.gate_proj",
       of_trunk,
       {swiglu(
            "silu' is the sigmoid alone", [](double, double a) { return a; }, silu),
        swiglu(
            "silu' is the sigmoid's derivative", [](double, double a) { return a * (1 - a); },
            silu),
        swiglu(
            "silu' lacks its first term", [](double z, double a) { return z * a * (1 - a); }, silu),
        swiglu("up learns from the sigmoid", slope, [](double, double a) { return a; }),
        swiglu("up learns from the gate", slope, [](double z, double) { return z; }),
        swiglu("the gate is detached", nothing, silu), swiglu("up is detached", slope, nothing),
        swapped}}};
}

GradientDefects balance() {
  const Applies of_balance = [](const GradientVariant& v) { return v.is("balance"); };
  return {{83,
           "balance-loss-over-batch",
           "The balance loss counts loads over the batch, not sequence by sequence.",
           issue("NVIDIA/Megatron-LM", 2237),
           "loss.balance",
           [=](const GradientVariant& v) { return of_balance(v) && v.sequences.size() > 1; },
           {{"",
             [](GradientVariant& v) {
               const auto joined = [](std::span<const Index> documents) {
                 std::vector<Index> one(documents.begin(), documents.end());
                 for (Index& document : one) document = std::min<Index>(document, 0);
                 return one;
               };
               v.ops.balance_loss = [=, inner = v.ops.balance_loss](
                                        Name at, const reference::BalanceInputs<double>& in,
                                        double alpha) {
                 const std::vector<Index> one = joined(in.documents);
                 return inner(at, {in.s, in.experts, one}, alpha);
               };
               around(v.backward.balance_loss, anywhere(),
                      [=](const auto& inner, Name at, Out d_s,
                          const reference::BalanceInputs<double>& in, double alpha) {
                        const std::vector<Index> one = joined(in.documents);
                        inner(at, d_s, {in.s, in.experts, one}, alpha);
                      });
             }}},
           true}};
}

}  // namespace

GradientDefects expert_defects() {
  GradientDefects all;
  for (const GradientDefects& part :
       {routing_weights(), routing_scores(), experts(), activation(), balance()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
