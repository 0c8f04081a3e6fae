// The formula of the indexer's loss, its student, and the rows and layers that count.
#include <algorithm>
#include <cmath>

#include "verify/defects/gradients/parts.hpp"

namespace dsa::verify {
namespace {

using Row = const KlRow&;
using DZ = std::vector<double>&;

/// Gradient of the student's logits from that of its probabilities.
void through_softmax(Row row, DZ d_q) {
  double sum = 0;
  for (std::size_t i = 0; i < d_q.size(); ++i) sum += row.q[i] * d_q[i];
  for (std::size_t i = 0; i < d_q.size(); ++i) d_q[i] = row.q[i] * (d_q[i] - sum);
}

/// sum_s f(p, q) with its derivative by q.
struct Divergence {
  double value = 0, slope = 0;
};
template <class F>
RowLoss divergence(F f) {
  return [f](Row row, DZ d_z) {
    double loss = 0;
    for (std::size_t i = 0; i < row.keys.size(); ++i) {
      const Divergence at = f(row.p[i], row.q[i]);
      loss += at.value;
      d_z[i] = at.slope;
    }
    through_softmax(row, d_z);
    return loss;
  };
}

Divergence reversed(double p, double q) {
  const double ratio = std::log(q) - std::log(p);
  return {q * ratio, ratio + 1};
}
Divergence forward(double p, double q) {
  return p > 0 ? Divergence{p * (std::log(p) - std::log(q)), -p / q} : Divergence{};
}
Divergence symmetric(double p, double q) {
  const Divergence a = forward(p, q), b = reversed(p, q);
  return {(a.value + b.value) / 2, (a.slope + b.slope) / 2};
}
Divergence jensen_shannon(double p, double q) {
  const double m = (p + q) / 2;
  const double of_p = p > 0 ? p * std::log(p / m) : 0;
  return {(of_p + q * std::log(q / m)) / 2, std::log(q / m) / 2};
}
Divergence squared(double p, double q) { return {(p - q) * (p - q), 2 * (q - p)}; }
Divergence cross_entropy(double p, double q) { return {-p * std::log(q), -p / q}; }

GradientChange row_loss(std::string name, RowLoss f) {
  return {std::move(name), [f = std::move(f)](GradientVariant& v) { replace_kl(v, f); }};
}
GradientChange row_gradient(std::string name, RowLoss f) {
  return {std::move(name), [f = std::move(f)](GradientVariant& v) { replace_kl_gradient(v, f); }};
}

/// The student's logits as they are, as if they were its probabilities' logarithms: no softmax.
double without_softmax(Row row, DZ d_z) {
  for (std::size_t i = 0; i < row.keys.size(); ++i) d_z[i] = -row.p[i];
  return 0;
}
double diagonal_jacobian(Row row, DZ d_z) {
  for (std::size_t i = 0; i < row.keys.size(); ++i) d_z[i] = -row.p[i] * (1 - row.q[i]);
  return 0;
}
double weighted_by_student(Row row, DZ d_z) {
  for (std::size_t i = 0; i < row.keys.size(); ++i) d_z[i] = row.q[i] * (row.q[i] - row.p[i]);
  return 0;
}
double weighted_by_teacher(Row row, DZ d_z) {
  for (std::size_t i = 0; i < row.keys.size(); ++i) d_z[i] = row.p[i] * (row.q[i] - row.p[i]);
  return 0;
}

GradientDefects formulas() {
  return {{202,
           "kl-reversed",
           "Plausible: the KL divergence is taken of the student from the teacher.",
           "",
           "loss.kl",
           of_kl,
           {row_loss("", divergence(reversed)),
            row_loss("mean of both directions", divergence(symmetric)),
            row_loss("Jensen-Shannon", divergence(jensen_shannon))},
           true},
          {421,
           "kl-squared-error",
           "Plausible: the indexer's loss is a squared error of probabilities.",
           "",
           "loss.kl",
           of_kl,
           {row_loss("", divergence(squared))},
           true},
          {422,
           "kl-without-teacher-entropy",
           "Plausible: the indexer's loss is a cross entropy: the teacher's entropy is left out.",
           "",
           "loss.kl",
           of_kl,
           {row_loss("", divergence(cross_entropy))},
           true},
          {423,
           "kl-softmax-backward",
           "Plausible: the backward pass of the student's softmax is not whole.",
           "",
           "self_attn.indexer.scores",
           of_kl,
           {row_gradient("its sum is left out: -p", without_softmax),
            row_gradient("the diagonal of its Jacobian alone", diagonal_jacobian),
            row_gradient("multiplied by q once more", weighted_by_student),
            row_gradient("multiplied by p once more", weighted_by_teacher)}}};
}

/// The student sees its scores times `factor`, in the loss alone.
void scale_student(GradientVariant& v, double factor) {
  v.ops.index_kl = [=, inner = v.ops.index_kl](Name name, reference::KlInputs<double> in,
                                               std::span<const double> weights,
                                               const KlSemantics& semantics) {
    in.scale *= factor;
    return inner(name, in, weights, semantics);
  };
  around(v.backward.index_kl, anywhere(),
         [=](const auto& inner, Name name, Out d_scores, reference::KlInputs<double> in,
             std::span<const double> weights, const KlSemantics& semantics) {
           in.scale *= factor;
           inner(name, d_scores, in, weights, semantics);
         });
}

GradientChange student(std::string name, std::function<double(const Indexer&)> factor) {
  return {std::move(name), [factor = std::move(factor)](GradientVariant& v) {
            scale_student(v, factor(*v.model.config.indexer));
          }};
}

GradientDefects scales() {
  return {
      {24,
       "student-scale",
       "The index scores lack a factor, or have it twice, in the loss: their order is right.",
       issue("PaddlePaddle/PaddleFleet", 1322),
       "loss.kl",
       of_kl,
       {student("without index_n_heads^-1/2", [](const Indexer& i) { return 1 / i.weight_scale; }),
        student("without index_head_dim^-1/2", [](const Indexer& i) { return 1 / i.dot_scale; }),
        student("without both",
                [](const Indexer& i) { return 1 / (i.weight_scale * i.dot_scale); }),
        student("index_n_heads^-1/2 twice", [](const Indexer& i) { return i.weight_scale; }),
        student("index_head_dim^-1/2 twice", [](const Indexer& i) { return i.dot_scale; }),
        student("index_head_dim^-1/4",
                [](const Indexer& i) { return 1 / std::sqrt(i.dot_scale); })},
       true}};
}

/// The mean over the rows that `counts` tells, by row and by number of visible keys.
GradientChange rows_that(std::string name,
                         std::function<bool(const GradientVariant&, Index row, Index keys)> counts,
                         bool divide_by_all = false) {
  return {std::move(name), [counts = std::move(counts), divide_by_all](GradientVariant& v) {
            std::vector<double>& weights = v.objective.kl;
            double all = 0, left = 0;
            for (const auto& [first, end] : spans_of(v)) {
              Index keys = 0;
              for (Index t = first; t < end; ++t) {
                double& weight = weights[static_cast<std::size_t>(t)];
                all += weight;
                if (weight == 0) continue;
                ++keys;
                if (!counts(v, t - first, keys)) weight = 0;
                left += weight;
              }
            }
            if (!divide_by_all && left > 0)
              for (double& weight : weights) weight *= all / left;
          }};
}

void mean_by_sequence(GradientVariant& v) {
  std::vector<double>& weights = v.objective.kl;
  double all = 0;
  for (const double weight : weights) all += weight;
  for (const auto& [first, end] : spans_of(v)) {
    double sum = 0;
    for (Index t = first; t < end; ++t) sum += weights[static_cast<std::size_t>(t)];
    for (Index t = first; t < end && sum > 0; ++t)
      weights[static_cast<std::size_t>(t)] *= all / sum / static_cast<double>(v.sequences.size());
  }
}

GradientDefects rows() {
  const auto selects = [](const GradientVariant& v, Index, Index keys) { return keys > v.topk; };
  const auto behind_first = [](const GradientVariant&, Index, Index keys) { return keys > 1; };
  const auto before_last = [](const GradientVariant& v, Index row, Index) {
    return row + 1 < v.sequences.front().size();
  };
  const auto last = [](const GradientVariant& v, Index row, Index) {
    return row + 1 == v.sequences.front().size();
  };
  return {
      {45,
       "kl-rows-left-out",
       "The mean of the indexer's loss is over some of the rows only.",
       issue("NVIDIA/Megatron-LM", 4070),
       "loss.kl",
       of_kl,
       {rows_that("rows that see more keys than index_topk", selects),
        rows_that("rows that see more keys than index_topk, divided by all", selects, true),
        rows_that("all but the first", behind_first), rows_that("all but the last", before_last),
        rows_that("all but the last, divided by all", before_last, true),
        rows_that("the last alone", last)},
       true},
      {45,
       "kl-mean-by-sequence",
       "The indexer's loss is the mean of each sequence's mean, though sequences differ in "
       "length.",
       issue("NVIDIA/Megatron-LM", 4070),
       "loss.kl",
       both(of_kl, is_ragged),
       {{"", mean_by_sequence}},
       true}};
}

/// Layer by layer, in order: the weight of each one's rows.
using LayerWeight = std::function<double(std::size_t layer, std::size_t layers)>;
void weigh_layers(GradientVariant& v, const LayerWeight& weight, bool value_too) {
  const std::vector<bool> computes = v.model.config.indexer->computes;
  const auto layers = static_cast<std::size_t>(std::count(computes.begin(), computes.end(), true));
  const auto of = [=](Name name, std::span<const double> weights) {
    std::size_t layer = 0;
    for (std::size_t l = 0; l < computes.size(); ++l) {
      if (name.starts_with(in_layer(static_cast<Index>(l), ""))) break;
      layer += computes[l];
    }
    std::vector<double> mine(weights.begin(), weights.end());
    for (double& w : mine) w *= weight(layer, layers);
    return mine;
  };
  if (value_too)
    v.ops.index_kl = [=, inner = v.ops.index_kl](Name name, const reference::KlInputs<double>& in,
                                                 std::span<const double> weights,
                                                 const KlSemantics& semantics) {
      return inner(name, in, of(name, weights), semantics);
    };
  around(v.backward.index_kl, anywhere(),
         [=](const auto& inner, Name name, Out d_scores, const reference::KlInputs<double>& in,
             std::span<const double> weights, const KlSemantics& semantics) {
           inner(name, d_scores, in, of(name, weights), semantics);
         });
}

GradientDefects layers() {
  const auto several = [](const GradientVariant& v) {
    return of_kl(v) && std::count(v.model.config.indexer->computes.begin(),
                                  v.model.config.indexer->computes.end(), true) > 1;
  };
  const auto all = [](std::size_t, std::size_t n) { return static_cast<double>(n); };
  const LayerWeight last = [=](std::size_t l, std::size_t n) { return l + 1 == n ? all(l, n) : 0; },
                    first = [=](std::size_t l, std::size_t n) { return l == 0 ? all(l, n) : 0; },
                    last_share = [](std::size_t l, std::size_t n) { return l + 1 == n ? 1. : 0.; },
                    first_share = [](std::size_t l, std::size_t) { return l == 0 ? 1. : 0.; };
  const auto change = [](std::string name, LayerWeight weight, bool value) -> GradientChange {
    return {std::move(name), [weight = std::move(weight), value](GradientVariant& v) {
              weigh_layers(v, weight, value);
            }};
  };
  return {{424,
           "kl-of-one-layer",
           "Plausible: one layer's loss alone trains its indexer.",
           "",
           "loss.kl",
           several,
           {change("the last layer's", last, true), change("the first layer's", first, true),
            change("the last layer's, divided by all", last_share, true),
            change("the first layer's, divided by all", first_share, true)},
           true},
          {425,
           "kl-gradient-of-one-layer",
           "Plausible: the loss is of all layers, and one alone receives its gradient.",
           "",
           "self_attn.indexer.scores",
           several,
           {change("the last", last_share, false), change("the first", first_share, false)}}};
}

}  // namespace

GradientDefects kl_defects() {
  GradientDefects all;
  for (const GradientDefects& part : {formulas(), scales(), rows(), layers()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
