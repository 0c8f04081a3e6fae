#include "verify/training/replay.hpp"

#include <algorithm>
#include <cmath>

#include "core/random.hpp"
#include "core/trace_names.hpp"
#include "reference/model/backward.hpp"
#include "reference/ops/adamw.hpp"
#include "reference/precision/rounder_backward.hpp"

namespace dsa::verify {
namespace {

using reference::Objective;

/// weights x coefficient; a loss that is not asked for has none.
std::vector<double> scaled(std::vector<double> weights, double coefficient) {
  if (coefficient == 0) return {};
  for (double& weight : weights) weight *= coefficient;
  return weights;
}

std::vector<double> mtp_weights(const Sequence& batch) {
  auto weights = reference::mean_over_targets<double>(reference::targets_of(batch, 2));
  weights.pop_back();
  return weights;
}

/// The batch's losses times `lm`, `kl`, `mtp` and `balance`.
Objective<double> objective_of(const Recipe& coefficients, const Sequence& batch) {
  Objective<double> objective;
  objective.lm = scaled(reference::lm_objective<double>(batch).lm, coefficients.lm);
  if (coefficients.kl != 0)
    objective.kl =
        scaled(reference::kl_weights<double>(coefficients.semantics, batch), coefficients.kl);
  if (coefficients.mtp != 0) objective.mtp = scaled(mtp_weights(batch), coefficients.mtp);
  objective.balance = coefficients.balance;
  objective.semantics = coefficients.semantics;
  return objective;
}

void copy(Tensor<double, 2>& to, View<double, 2> from) {
  to = Tensor<double, 2>(from.shape);
  std::copy(from.begin(), from.end(), to.begin());
}

bool is_bias(const std::string& name) { return name.ends_with("e_score_correction_bias"); }

/// u: the rounding of the format that parameters and moments are kept in.
double unit_of(reference::Precision precision) {
  return precision == reference::Precision::fp64 ? 0x1p-53 : 0x1p-24;
}

}  // namespace

Replay::Replay(const Model& model, Procedure procedure, std::vector<std::string> recorded,
               Roundings roundings)
    : start_(model),
      procedure_(std::move(procedure)),
      recorded_(std::move(recorded)),
      roundings_(roundings) {
  const Recipe& recipe = procedure_.recipe;
  for_each_tensor(
      start_.weights, start_.config,
      [&](const std::string& name, const Parameter& p, const std::vector<Index>& shape) {
        Weight& weight = weights_[name];
        weight.p = read_all<double>(p);
        weight.decayed = shape.size() > 1 || recipe.adamw.decayed == AdamW::Decayed::all;
        if (!recipe.trains(name)) return;
        weight.m.assign(weight.p.size(), 0.0);
        weight.v = weight.m;
      });
}

bool Replay::trains(const std::string& parameter) const {
  return weights_.at(parameter).trained() ||
         (is_bias(parameter) && procedure_.recipe.bias_update_rate != 0);
}

bool Replay::asks(const std::string& quantity) const {
  return std::find(recorded_.begin(), recorded_.end(), quantity) != recorded_.end();
}

Model Replay::current() const {
  Model model = start_;
  for_each_tensor(model.weights, model.config, [&](const std::string& name, Parameter& p, auto&&) {
    p.dtype = Dtype::f64;
    p.seen_finite = true;
    p.scale_inv = nullptr;
    p.data = reinterpret_cast<const std::byte*>(weights_.at(name).p.data());
  });
  tie_weights(model.weights, model.config);
  if (model.config.indexer && procedure_.recipe.attention == Recipe::Attention::dense)
    model.config.use_sparse_attention = false;
  return roundings_.draw ? reference::loaded_as(std::move(model), roundings_.precision) : model;
}

Replay::Ops Replay::ops_of_step() const {
  if (!roundings_.draw)
    return {reference::definition<double>(), reference::backward_definition<double>()};
  // Another draw at every step: errors of one step are not those of the next.
  const reference::Rounding rounding{
      reference::Rounding::Mode::random,
      random_bits(*roundings_.draw, static_cast<std::uint64_t>(steps_))};
  return {reference::ops_of(roundings_.precision, rounding, start_.config),
          reference::backward_ops_of(roundings_.precision, rounding)};
}

BeforeUpdate Replay::before_update(const Sequence& batch, const Alter& alter,
                                   const reference::Tap<double>& tap) {
  Ops ops = ops_of_step();
  if (alter) alter(ops.forward, ops.backward);
  reference::Tap<double> counting = tap;
  counting.decision = [&](const std::string& name, View<const double, 2> scores,
                          View<Index, 2> chosen) {
    if (tap.decision) tap.decision(name, scores, chosen);
    if (!name.ends_with(".mlp.gate.experts")) return;
    std::vector<Index>& load = loads_[name];
    load.assign(static_cast<std::size_t>(scores.shape[1]), 0);
    for (const Index expert : chosen) ++load[static_cast<std::size_t>(expert)];
  };
  BeforeUpdate before;
  losses(before.losses, before.gradients, batch, ops, counting);
  return before;
}

StepRecord Replay::step(const Sequence& batch, const Alter& alter,
                        const reference::Tap<double>& tap) {
  return step(before_update(batch, alter, tap));
}

StepRecord Replay::step(BeforeUpdate before) {
  StepRecord record = std::move(before.losses);
  const double norm = norm_of(before.gradients), rate = rate_of(steps_);
  const double kept = reference::clip_factor(norm, procedure_.recipe.clip);
  record["grad_norm"] = procedure_.clipped_norm_recorded ? norm * kept : norm;
  record["lr"] = rate;
  clip(before.gradients, norm);
  ++steps_;
  update(before.gradients, rate);
  if (procedure_.recipe.bias_update_rate != 0) update_biases();
  return record;
}

/// Losses as they are, without their coefficients; gradients of all of them.
void Replay::losses(StepRecord& record, Gradients& gradients, const Sequence& batch, const Ops& ops,
                    const reference::Tap<double>& tap) const {
  const Recipe& recipe = procedure_.recipe;
  const Model model = current();
  // The last block's output, of which a language-model loss that is not trained on is computed.
  const std::string last = layer_name(model.config.num_hidden_layers - 1);
  Tensor<double, 2> output;
  reference::Pass<double> forward{model, ops.forward, tap};
  forward.tap.tensor = [&](const std::string& name, View<double, 2> x) {
    if (tap.tensor) tap.tensor(name, x);
    if (name == last) copy(output, x);
  };
  const auto take = [&](const reference::Losses<double>& found, const Recipe& c) {
    if (c.lm != 0) record["loss.lm"] = found.lm / c.lm;
    if (c.kl != 0) record["loss.kl"] = found.kl / c.kl;
    if (c.mtp != 0) record["loss.mtp"] = found.mtp / c.mtp;
    if (c.balance != 0) record["loss.balance"] = found.balance / c.balance;
  };
  const Objective<double> objective = objective_of(recipe, batch);
  take(reference::backward<double>({forward, ops.backward, batch, objective,
                                    [&](const std::string& name, View<const double, 2> gradient) {
                                      if (weights_.at(name).trained())
                                        gradients[name].assign(gradient.begin(), gradient.end());
                                    }}),
       recipe);
  // What is recorded and not trained on.
  const auto wanted = [&](const char* quantity) {
    return asks(quantity) && !record.contains(quantity) ? 1.0 : 0.0;
  };
  if (wanted("loss.lm") != 0) {
    const auto targets = reference::targets_of(batch, 1);
    const auto weights = reference::mean_over_targets<double>(targets);
    record["loss.lm"] = reference::cross_entropy<double>(
        reference::logits(reference::Pass<double>{model, ops.forward}, output), targets, weights);
  }
  Recipe rest = recipe;
  rest.lm = 0, rest.kl = start_.config.indexer ? wanted("loss.kl") : 0;
  rest.mtp = start_.weights.mtp.empty() ? 0 : wanted("loss.mtp");
  rest.balance = wanted("loss.balance");
  if (rest.kl + rest.mtp + rest.balance == 0) return;
  take(reference::losses<double>({model, ops.forward}, batch, objective_of(rest, batch)), rest);
}

/// sqrt of the sum of squares; with roundings, those of one sum a parameter in float32 (or double),
/// its terms in the worst order (reference/precision/precision.hpp).
double Replay::norm_of(const Gradients& gradients) const {
  double squares = 0;
  for (const auto& [name, gradient] : gradients) {
    double mine = 0;
    for (const double g : gradient) mine += g * g;
    if (roundings_.draw) {
      const double die =
          uniform(*roundings_.draw, seed_of(name, static_cast<std::uint64_t>(steps_)));
      mine *= 1 + unit_of(roundings_.precision) *
                      std::sqrt(static_cast<double>(gradient.size()) / 3) * (2 * die - 1);
    }
    squares += mine;
  }
  return procedure_.gradient_factor * std::sqrt(squares);
}

double Replay::rate_of(Index step) const {
  const Index at = step + procedure_.schedule_shift;
  return at < 0 ? 0 : procedure_.recipe.schedule.at(at);
}

void Replay::clip(Gradients& gradients, double norm) const {
  const Clip& limit = procedure_.recipe.clip;
  const double factor = procedure_.gradient_factor;
  for (auto& [name, gradient] : gradients) {
    double own = 0;
    for (double& g : gradient) {
      g *= factor;
      own += g * g;
    }
    switch (procedure_.clip_over) {
      case Procedure::ClipOver::run:
      case Procedure::ClipOver::parameter: {
        const bool run = procedure_.clip_over == Procedure::ClipOver::run;
        const double kept = reference::clip_factor(run ? norm : std::sqrt(own), limit);
        for (double& g : gradient) g *= kept;
        break;
      }
      case Procedure::ClipOver::number:
        if (limit.max_norm == 0) break;
        for (double& g : gradient) g = std::clamp(g, -limit.max_norm, limit.max_norm);
    }
  }
}

void Replay::update(const Gradients& gradients, double rate) {
  AdamW adamw = procedure_.recipe.adamw;
  if (!procedure_.decay_scheduled && rate != 0)  // rate x decay is what p loses
    adamw.weight_decay *= procedure_.recipe.schedule.lr / rate;
  for (const auto& [name, gradient] : gradients) {
    Weight& w = weights_.at(name);
    if (!procedure_.moments_kept) {
      std::fill(w.m.begin(), w.m.end(), 0.0);
      std::fill(w.v.begin(), w.v.end(), 0.0);
    }
    const Index counted = procedure_.moments_kept ? steps_ + procedure_.correction_shift : 1;
    reference::adamw_step<double>({w.p, w.m, w.v, w.decayed}, gradient, adamw, rate, 1, counted);
    round_all(w.p, name + ".p", 2);  // by the decay and by the update
    round_all(w.m, name + ".m", 1);
    round_all(w.v, name + ".v", 1);
  }
}

void Replay::update_biases() {
  for (const auto& [name, load] : loads_) {
    const auto found =
        weights_.find(name.substr(0, name.rfind('.') + 1) + "e_score_correction_bias");
    if (found == weights_.end()) continue;
    reference::update_router_bias(found->second.p, load, procedure_.recipe.bias_update_rate);
  }
}

/// What keeping a result in float32 (or double) costs, `times` over: uniform, of one rounding's
/// size.
void Replay::round_all(std::vector<double>& x, const std::string& name, int times) const {
  if (!roundings_.draw) return;
  const double unit = unit_of(roundings_.precision);
  for (int time = 0; time < times; ++time) {
    const std::uint64_t stream =
        seed_of(name, random_bits(*roundings_.draw, static_cast<std::uint64_t>(2 * steps_ + time)));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] *= 1 + unit * (2 * uniform(stream, i) - 1);
  }
}

}  // namespace dsa::verify
