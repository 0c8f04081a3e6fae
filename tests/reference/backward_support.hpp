// tests/reference/backward_support.hpp — gradients, directions and golden files that the tests of
// the backward pass share.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "reference/dual.hpp"
#include "reference/model/backward.hpp"
#include "tests/models.hpp"
#include "tests/tiny_checkpoint.hpp"

namespace dsa::test {

using reference::BackwardOps;
using reference::Dual;
using reference::Losses;
using reference::MlaForm;
using reference::Objective;

template <class Real>
struct Answers {
  Losses<Real> losses;
  std::map<std::string, Tensor<Real, 2>> gradients;
  std::map<std::string, Tensor<Real, 2>> outputs;  // d.<module>, first time seen
};

/// How a backward pass is run.
struct Ask {
  MlaForm form = MlaForm::expanded;
  bool traced = false;
};

/// Every gradient of an objective. A parameter that is handed out twice is a failure.
template <class Real>
Answers<Real> gradients_of(
    const Model& model, const Sequence& sequence, const Objective<Real>& objective,
    const Ask& ask = {},
    const BackwardOps<Real>& backward_ops = reference::backward_definition<Real>()) {
  const SharingThreads scope(1);
  const reference::Ops<Real> ops = reference::definition<Real>();
  const reference::Pass<Real> pass{model, ops, {}, ask.form};
  Answers<Real> answers;
  const auto keep = [](auto& kept, const std::string& name, View<const Real, 2> x) {
    Tensor<Real, 2> copy(x.shape);
    std::copy(x.begin(), x.end(), copy.begin());
    return kept.emplace(name, std::move(copy)).second;
  };
  reference::BackwardTap<Real> tap;
  if (ask.traced)
    tap = [&](const std::string& name, View<Real, 2> d) {
      keep(answers.outputs, "d." + name, View<const Real, 2>(d));
    };
  answers.losses = reference::backward<Real>(
      {pass, backward_ops, sequence, objective,
       [&](const std::string& name, View<const Real, 2> gradient) {
         require(keep(answers.gradients, name, gradient), name + " was handed out twice");
       },
       tap});
  return answers;
}

template <class Real>
Losses<Real> losses_of(const Model& model, const Sequence& sequence,
                       const Objective<Real>& objective) {
  const SharingThreads scope(1);
  const reference::Ops<Real> ops = reference::definition<Real>();
  return reference::losses<Real>({model, ops}, sequence, objective);
}

/// The objective's weights as another Real.
template <class Real, class From>
Objective<Real> as_real(const Objective<From>& from) {
  const auto convert = [](const std::vector<From>& x) {
    return std::vector<Real>(x.begin(), x.end());
  };
  return {convert(from.lm), convert(from.mtp), convert(from.kl), static_cast<Real>(from.balance),
          from.semantics};
}

/// All losses at once, in unlike shares.
inline Objective<double> every_loss(const Model& model, const Sequence& sequence,
                                    const KlSemantics& semantics = {}) {
  Objective<double> all = reference::lm_objective<double>(sequence);
  all.semantics = semantics;
  if (model.config.indexer) {
    all.kl = reference::kl_weights<double>(semantics, sequence);
    for (double& w : all.kl) w *= 0.7;
  }
  if (model.config.n_routed_experts > 0) all.balance = 0.3;
  if (!model.weights.mtp.empty()) {
    all.mtp = reference::mean_over_targets<double>(reference::targets_of(sequence, 2));
    all.mtp.pop_back();
    for (double& w : all.mtp) w *= 0.4;
  }
  return all;
}

using Direction = std::map<std::string, std::vector<double>>;

/// A random direction, 0 outside of the parameters that `moves` names.
template <class Moves>
Direction direction_of(const Model& model, std::uint64_t seed, Moves moves) {
  Direction direction;
  for_each_tensor(model.weights, model.config,
                  [&](const std::string& name, const Parameter& p, const auto&) {
                    const std::uint64_t stream = random_bits(seed, direction.size());
                    std::vector<double> d(static_cast<std::size_t>(p.rows() * p.columns()));
                    for (std::size_t i = 0; i < d.size() && moves(name); ++i)
                      d[i] = gaussian(stream, i);
                    direction[name] = std::move(d);
                  });
  return direction;
}
inline Direction direction_of(const Model& model, std::uint64_t seed) {
  return direction_of(model, seed, [](const std::string&) { return true; });
}

/// The same model with its parameters in F64 (long double: exact, as long as the sum is), moved by
/// `step` times the direction, and the direction behind each as read_rows<Dual> expects.
inline Model moved(const Model& from, const Direction& direction, double step) {
  Model model = from;
  const auto memory = std::make_shared<std::deque<std::vector<double>>>();
  for_each_tensor(model.weights, model.config,
                  [&](const std::string& name, Parameter& p, const std::vector<Index>& shape) {
                    const std::vector<double>& d = direction.at(name);
                    std::vector<double> values = read_all<double>(p);
                    for (std::size_t i = 0; i < d.size(); ++i) values[i] += step * d[i];
                    values.insert(values.end(), d.begin(), d.end());
                    memory->push_back(std::move(values));
                    p = parameter(memory->back().data(), shape, name);
                  });
  tie_weights(model.weights, model.config);
  model.memory = memory;
  return model;
}

/// <gradient, direction>, and the sum of the magnitudes of its terms.
struct Product {
  double value = 0, magnitude = 0;
};
template <class Real>
Product product(const std::map<std::string, Tensor<Real, 2>>& gradients,
                const Direction& direction) {
  long double value = 0, magnitude = 0;
  for (const auto& [name, g] : gradients) {
    const std::vector<double>& d = direction.at(name);
    require(static_cast<Index>(d.size()) == g.size(), name + " has another size than its gradient");
    for (std::size_t i = 0; i < d.size(); ++i) {
      const long double term = static_cast<long double>(g.data()[i]) * d[i];
      value += term;
      magnitude += std::abs(term);
    }
  }
  return {static_cast<double>(value), static_cast<double>(magnitude)};
}

/// A tiny model and its config, changed by hand; every size is different.
template <class Change>
Model tiny_model(std::uint64_t seed, Change change) {
  Config config = parse_config(tiny_config(), "the tiny config");
  change(config);
  return random_model(config, seed);
}

inline Config with_mtp() {
  Json json = tiny_config();
  json["num_nextn_predict_layers"] = 1;
  return parse_config(json, "the tiny config");
}

inline bool of_indexer(const std::string& name) {
  return name.find(".indexer.") != std::string::npos;
}
inline bool of_correction_bias(const std::string& name) {
  return name.ends_with("e_score_correction_bias");
}

template <class Real>
bool all_zero(const Tensor<Real, 2>& x) {
  return std::all_of(x.begin(), x.end(), [](Real value) { return value == 0; });
}

}  // namespace dsa::test
