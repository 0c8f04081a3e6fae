// What each row must predict, which rows count, and what else is in the loss.
#include <cmath>

#include "reference/ops/mla.hpp"
#include "verify/defects/gradients/parts.hpp"

namespace dsa::verify {
namespace {

using reference::targets_of;
using Targets = std::vector<Token>;

void predict(GradientVariant& v, Targets targets, std::span<const double> shares = {}) {
  v.objective.lm = reference::mean_over_targets<double>(targets, shares);
  v.objective.lm_targets = std::move(targets);
}

/// The usual targets, rewritten sequence by sequence: f(targets, first, end).
GradientChange retargeted(std::string name,
                          std::function<void(GradientVariant&, Targets&, Index, Index)> f) {
  return {std::move(name), [f = std::move(f)](GradientVariant& v) {
            Targets targets = targets_of(v.sequence, 1);
            for (const auto& [first, end] : spans_of(v)) f(v, targets, first, end);
            predict(v, std::move(targets));
          }};
}

/// Each row predicts the token `ahead` places later in its sequence.
GradientChange shifted(std::string name, Index ahead) {
  return retargeted(
      std::move(name), [ahead](GradientVariant& v, Targets& targets, Index first, Index end) {
        for (Index t = first; t < end; ++t) {
          const auto at = static_cast<std::size_t>(t);
          const Index to = t + ahead;
          const bool inside = first <= to && to < end;
          targets[at] = -1;
          if (inside && v.sequence.documents[at] >= 0 &&
              v.sequence.documents[at] == v.sequence.documents[static_cast<std::size_t>(to)])
            targets[at] = v.sequence.tokens[static_cast<std::size_t>(to)];
        }
      });
}

/// The last counted row of each sequence predicts something, too.
GradientChange last_row_predicts(
    std::string name, std::function<Token(const GradientVariant&, Index first, Index end)> token) {
  return retargeted(
      std::move(name),
      [token = std::move(token)](GradientVariant& v, Targets& targets, Index first, Index end) {
        if (v.sequence.documents[static_cast<std::size_t>(end - 1)] >= 0)
          targets[static_cast<std::size_t>(end - 1)] = token(v, first, end);
      });
}

GradientDefects labels() {
  const auto first_token = [](const GradientVariant& v, Index first, Index) {
    return v.sequence.tokens[static_cast<std::size_t>(first)];
  };
  const auto next_sequence = [](const GradientVariant& v, Index, Index end) {
    return v.sequence.tokens[static_cast<std::size_t>(end % v.sequence.size())];
  };
  const auto zero = [](const GradientVariant&, Index, Index) { return Token{0}; };
  return {{102,
           "last-token-counted",
           "The last position of a sequence counts, though nothing follows it: labels are rolled.",
           issue("radixark/miles", 2215),
           "loss.lm",
           of_lm,
           {last_row_predicts("predicts the first token of its sequence", first_token),
            last_row_predicts("predicts the first token of the next sequence", next_sequence),
            last_row_predicts("predicts token 0", zero)},
           true},
          {102,
           "labels-shifted",
           "Labels are shifted twice, not at all, or the other way.",
           issue("radixark/miles", 2215),
           "loss.lm",
           of_lm,
           {shifted("not at all: a row predicts its own token", 0),
            shifted("twice: a row predicts the token two places ahead", 2),
            shifted("the other way: a row predicts the token before it", -1)},
           true}};
}

/// Padding that counts: what follows the last token is a target, and padding rows predict padding.
void count_padding(GradientVariant& v, bool rows_too) {
  Targets targets(v.sequence.tokens.size(), -1);
  for (const auto& [first, end] : spans_of(v))
    for (Index t = first; t + 1 < end; ++t) {
      const auto at = static_cast<std::size_t>(t);
      if (rows_too || v.sequence.documents[at] >= 0) targets[at] = v.sequence.tokens[at + 1];
    }
  predict(v, std::move(targets));
}

/// The mean over sequences of each one's mean.
void mean_by_sequence(GradientVariant& v) {
  const Targets targets = targets_of(v.sequence, 1);
  std::vector<double> shares(targets.size());
  for (const auto& [first, end] : spans_of(v)) {
    const auto n = std::count_if(targets.begin() + first, targets.begin() + end,
                                 [](Token target) { return target >= 0; });
    for (Index t = first; t < end && n > 0; ++t)
      shares[static_cast<std::size_t>(t)] = 1 / static_cast<double>(n);
  }
  predict(v, targets, shares);
}

void leave_out_first(GradientVariant& v) {
  Targets targets = targets_of(v.sequence, 1);
  for (const auto& [first, end] : spans_of(v)) targets[static_cast<std::size_t>(first)] = -1;
  predict(v, std::move(targets));
}

void weigh_by_segment(GradientVariant& v, double first) {
  std::vector<double> shares;
  for (const Index document : v.sequence.documents)
    shares.push_back(std::max(0.0, static_cast<double>(document) + first));
  predict(v, targets_of(v.sequence, 1), shares);
}

bool has_several(const GradientVariant& v) { return of_lm(v) && v.sequences.size() > 1; }

GradientDefects counting() {
  return {{103,
           "segment-ids-as-weights",
           "The ids of segments are taken for the weights of tokens.",
           repository("AI-Hypercomputer/maxtext") + "/commit/092c3e871",
           "loss.lm",
           has_several,
           {{"ids from 1", [](GradientVariant& v) { weigh_by_segment(v, 1); }},
            {"ids from 0", [](GradientVariant& v) { weigh_by_segment(v, 0); }}},
           true},
          {401,
           "lm-padding-counted",
           "Plausible: padding counts in the language-model loss.",
           "",
           "loss.lm",
           both(of_lm, has_padding),
           {{"as a target of the last token", [](GradientVariant& v) { count_padding(v, false); }},
            {"as targets and rows", [](GradientVariant& v) { count_padding(v, true); }}},
           true},
          {402,
           "lm-mean-by-sequence",
           "Plausible: the language-model loss is the mean of each sequence's mean, though "
           "sequences differ in "
           "length.",
           "",
           "loss.lm",
           both(of_lm, is_ragged),
           {{"", mean_by_sequence}},
           true},
          {403,
           "lm-first-token-left-out",
           "Plausible: the first position of each sequence does not count.",
           "",
           "loss.lm",
           of_lm,
           {{"", leave_out_first}},
           true}};
}

/// Cross entropy with a share of the labels spread over the vocabulary, and alpha log^2 Z.
void soften(GradientVariant& v, double smoothing, double z_loss) {
  const auto log_sum = [](View<const double, 1> z) {
    const double largest = *std::max_element(z.begin(), z.end());
    double sum = 0;
    for (const double x : z) sum += std::exp(x - largest);
    return largest + std::log(sum);
  };
  v.ops.cross_entropy = [=](Name, In z, std::span<const Token> targets,
                            std::span<const double> weights) {
    double loss = 0;
    for (Index t = 0; t < z.shape[0]; ++t) {
      const auto at = static_cast<std::size_t>(t);
      if (targets[at] < 0) continue;
      const double all = log_sum(z[t]);
      double mean = 0;
      for (const double x : z[t]) mean += x / static_cast<double>(z.shape[1]);
      loss += weights[at] *
              (all - (1 - smoothing) * z(t, targets[at]) - smoothing * mean + z_loss * all * all);
    }
    return loss;
  };
  v.backward.cross_entropy = [=](Name, Out d_z, In z, std::span<const Token> targets,
                                 std::span<const double> weights) {
    const double share = smoothing / static_cast<double>(z.shape[1]);
    for (Index t = 0; t < z.shape[0]; ++t) {
      const auto at = static_cast<std::size_t>(t);
      if (targets[at] < 0) continue;
      const double all = log_sum(z[t]);
      for (Index i = 0; i < z.shape[1]; ++i)
        d_z(t, i) += weights[at] * (std::exp(z(t, i) - all) * (1 + 2 * z_loss * all) - share -
                                    (i == targets[at] ? 1 - smoothing : 0));
    }
  };
}

GradientChange with_balance(double alpha) {
  return {constant("alpha", alpha), [=](GradientVariant& v) { v.objective.balance = alpha; }};
}
GradientChange with_kl(double coefficient) {
  return {constant("coefficient", coefficient), [=](GradientVariant& v) {
            v.objective.kl = reference::kl_weights<double>(v.objective.semantics, v.sequence);
            for (double& weight : v.objective.kl) weight *= coefficient;
          }};
}
GradientChange with_mtp(double coefficient) {
  return {constant("coefficient", coefficient), [=](GradientVariant& v) {
            v.objective.mtp = reference::mean_over_targets<double>(targets_of(v.sequence, 2));
            v.objective.mtp.pop_back();
            for (double& weight : v.objective.mtp) weight *= coefficient;
          }};
}

GradientDefects additions() {
  const Applies with_indexer = [](const GradientVariant& v) {
    return of_lm(v) && v.model.config.indexer;
  };
  const Applies with_prediction = [](const GradientVariant& v) {
    return of_lm(v) && !v.model.weights.mtp.empty();
  };
  return {{404,
           "labels-smoothed",
           "Plausible: a share of every label is spread over the vocabulary.",
           "",
           "loss.lm",
           of_lm,
           {{"0.1", [](GradientVariant& v) { soften(v, 0.1, 0); }}},
           true},
          {405,
           "z-loss-added",
           "Plausible: the squared logarithm of the softmax's sum is added to the loss.",
           "",
           "loss.lm",
           of_lm,
           {{"1e-4", [](GradientVariant& v) { soften(v, 0, 1e-4); }},
            {"1e-3", [](GradientVariant& v) { soften(v, 0, 1e-3); }}},
           true},
          {83,
           "balance-loss-added",
           "The router's balance loss is part of the language-model loss.",
           issue("NVIDIA/Megatron-LM", 5798),
           "loss.lm",
           both(of_lm, has_experts),
           {with_balance(1e-4), with_balance(1e-3), with_balance(1e-2), with_balance(1)},
           true},
          {406,
           "indexer-loss-added",
           "Plausible: the indexer's loss is part of the language-model loss.",
           "",
           "loss.lm",
           with_indexer,
           {with_kl(1), with_kl(0.1), with_kl(0.01), with_kl(0.001)},
           true},
          {104,
           "prediction-loss-added",
           "The multi-token-prediction loss is part of the language-model loss.",
           issue("volcengine/verl", 6432),
           "loss.lm",
           with_prediction,
           {with_mtp(0.1), with_mtp(0.3), with_mtp(1)},
           true}};
}

GradientDefects prediction() {
  const Applies of_mtp = [](const GradientVariant& v) { return v.is("mtp"); };
  const auto targets = [](std::string name, Index ahead) -> GradientChange {
    return {std::move(name), [ahead](GradientVariant& v) {
              Targets all = targets_of(v.sequence, ahead);
              all.pop_back();
              v.objective.mtp = reference::mean_over_targets<double>(all);
              v.objective.mtp_targets = std::move(all);
            }};
  };
  return {
      {102,
       "prediction-labels-shifted",
       "The prediction block's labels are shifted once or three times, not twice.",
       issue("radixark/miles", 2215),
       "loss.mtp",
       of_mtp,
       {targets("once: the next token", 1), targets("three times", 3)},
       true},
      {104,
       "prediction-detached-from-trunk",
       "The prediction block's gradient does not reach the main model.",
       issue("InternLM/xtuner", 2048),
       "hnorm",
       of_mtp,
       {{"hidden state", [](GradientVariant& v) { leave_out(v.backward.rmsnorm, ends("hnorm")); }},
        {"hidden state and embedding", [](GradientVariant& v) {
           leave_out(v.backward.rmsnorm, ends("hnorm"));
           leave_out(v.backward.rmsnorm, ends("enorm"));
         }}}}};
}

}  // namespace

GradientDefects target_defects() {
  GradientDefects all = labels();
  for (const GradientDefects& part : {counting(), additions(), prediction()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
