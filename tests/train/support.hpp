// tests/train/support.hpp — a trained model beside the reference: the same batch, the same
// objective, and how far the two may lie apart.
//
// That is measured, not chosen: the reference is run with fp32's roundings drawn at random
// (reference/precision), and verify's limits of those draws' distances hold for ours, too
// (verify/gradients/distance.hpp).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "optimized/train/model.hpp"
#include "reference/precision/rounder_backward.hpp"
#include "tests/catch.hpp"
#include "tests/reference/backward_support.hpp"
#include "verify/gradients/distance.hpp"
#include "verify/measure/bounds.hpp"
#include "verify/measure/stats.hpp"

namespace dsa::test {

using Gradients = std::map<std::string, std::vector<double>>;

inline train::Batch batch_of(const Sequence& sequence) {
  train::Batch batch;
  batch.tokens = sequence.tokens;
  batch.positions = sequence.positions;
  for (std::size_t t = 0; t < sequence.tokens.size(); ++t) {
    const bool same = t > 0 && sequence.documents[t] == sequence.documents[t - 1];
    batch.begin.push_back(same ? batch.begin.back() : static_cast<std::int32_t>(t));
  }
  for (Index t = 0; t < batch.rows(); ++t) batch.target_weight.push_back(batch.has_next(t) ? 1 : 0);
  return batch;
}

/// Documents of `lengths` tokens, drawn from a seed.
inline Sequence documents_of(const Config& config, const std::vector<Index>& lengths,
                             std::uint64_t seed) {
  std::vector<std::vector<Token>> documents;
  std::uint64_t i = 0;
  for (const Index length : lengths) {
    documents.emplace_back();
    for (Index t = 0; t < length; ++t)
      documents.back().push_back(static_cast<Token>(random_bits(seed, i++) %
                                                    static_cast<std::uint64_t>(config.vocab_size)));
  }
  return packed_sequence(documents);
}

/// How often a weight of the reference's objective is not 0.
inline double counted(const std::vector<double>& weights) {
  return static_cast<double>(
      std::count_if(weights.begin(), weights.end(), [](double w) { return w != 0; }));
}

/// The reference's objective as factors: a weight stands for what it is divided by.
inline train::Objective as_factors(const Objective<double>& from, const Config& config,
                                   const Sequence& sequence, bool dense) {
  const auto factor = [](const std::vector<double>& weights) {
    return weights.empty() ? 0 : *std::max_element(weights.begin(), weights.end());
  };
  train::Objective to;
  to.attention = dense ? Recipe::Attention::dense : Recipe::Attention::sparse;
  to.semantics = from.semantics;
  to.lm = factor(from.lm);
  to.mtp = factor(from.mtp);
  to.kl = factor(from.kl);
  if (config.indexer && from.semantics.layers == KlSemantics::Reduction::mean)
    to.kl /= static_cast<double>(
        std::count(config.indexer->computes.begin(), config.indexer->computes.end(), true));
  to.balance = from.balance / static_cast<double>(sequence.documents.back() + 1);
  return to;
}

inline Gradients values_of(train::Parameters& parameters, const Config& config) {
  Gradients all;
  for_each_tensor(parameters, config, [&](const std::string& name, train::Leaf& leaf, const auto&) {
    all[name].assign(leaf.begin(), leaf.end());
  });
  return all;
}

inline bool everything(const std::string&) { return true; }

struct Trained {
  train::Losses losses;
  Gradients gradients;
};

inline Trained train_once(const Model& model, const train::Batch& batch,
                          const train::Objective& objective, int threads = 1,
                          train::Compute compute = train::Compute::fp32) {
  const Threads scope(threads);
  train::TrainedModel trained(model, compute);
  Trained result;
  result.losses = trained.run(batch, objective, everything);
  result.gradients = values_of(trained.gradients(), model.config);
  return result;
}

/// One backward pass of the reference: the definition, or with a precision's roundings, drawn by
/// `seed`.
struct Defined {
  Losses<double> losses;
  Gradients gradients;
};
inline Defined define(const Model& model, const Sequence& sequence,
                      const Objective<double>& objective) {
  const auto answers = gradients_of(model, sequence, objective);
  Defined result{answers.losses, {}};
  for (const auto& [name, g] : answers.gradients) result.gradients[name].assign(g.begin(), g.end());
  return result;
}
inline Defined draw(const Model& model, const Sequence& sequence,
                    const Objective<double>& objective, reference::Precision precision,
                    std::uint64_t seed) {
  const Threads scope(1);
  const reference::Rounding rounding{reference::Rounding::Mode::random, seed};
  const auto ops = reference::ops_of(precision, rounding, model.config);
  const auto backward_ops = reference::backward_ops_of(precision, rounding);
  const reference::Pass<double> pass{model, ops, {}, MlaForm::expanded};
  Defined result;
  result.losses = reference::backward<double>(
      {pass, backward_ops, sequence, objective,
       [&](const std::string& name, View<const double, 2> gradient) {
         result.gradients[name].assign(gradient.begin(), gradient.end());
       }});
  return result;
}

/// The reference and its draws, parameter by parameter.
struct Noise {
  std::vector<std::string> names;              // of gradients that are not 0
  std::vector<std::vector<double>> distances;  // of each parameter's draws
  std::vector<Losses<double>> losses;          // of each draw
};
inline Noise noise_of(const Model& model, const Sequence& sequence,
                      const Objective<double>& objective, const Defined& want,
                      reference::Precision precision = reference::Precision::hf_fp32) {
  constexpr std::uint64_t draws = 4;
  Noise noise;
  for (const auto& [name, g] : want.gradients)
    if (verify::norm(g) > 0) noise.names.push_back(name);
  noise.distances.resize(noise.names.size());
  for (std::uint64_t seed = 0; seed < draws; ++seed) {
    const Defined got = draw(model, sequence, objective, precision, seed);
    noise.losses.push_back(got.losses);
    for (std::size_t p = 0; p < noise.names.size(); ++p) {
      const std::string& name = noise.names[p];
      noise.distances[p].push_back(
          verify::distance(got.gradients.at(name), want.gradients.at(name)).whole);
    }
  }
  return noise;
}

inline void check_gradients(const Gradients& got, const Defined& want, const Noise& noise) {
  constexpr double tail = 1e-6;  // of a right run beyond the limit, a parameter
  // The draws round an exponential to half a unit in the last place; the kernels' is good to two
  // (kernels/native.hpp). What the indexer learns is a difference of exponentials, q - p.
  const auto exponentials = [](const std::string& name) { return of_indexer(name) ? 4.0 : 1.0; };
  const verify::DistanceLimits limits(noise.distances);
  for (std::size_t p = 0; p < noise.names.size(); ++p) {
    const std::string& name = noise.names[p];
    const double whole = verify::distance(got.at(name), want.gradients.at(name)).whole;
    const double limit = exponentials(name) * limits.of(p, tail);
    INFO(name << " is " << whole << " from the definition, allowed " << limit);
    CHECK(whole <= limit);
  }
  for (const auto& [name, g] : want.gradients) {
    if (verify::norm(g) > 0) continue;
    INFO(name << " has the gradient 0");
    CHECK(verify::norm(got.at(name)) == 0);
  }
}

/// One loss. Draws round what a loss is made of, not its own arithmetic: a row is made of
/// logarithms of sums of at most n positive fp32 terms, each off by gamma(n), weighed by
/// probabilities that are off by as much. `weight`: of all rows together.
inline void check_loss(double got, double want, const std::vector<double>& draws, Index n,
                       double weight) {
  constexpr double tail = 1e-6;
  double squares = 0;
  const auto M = static_cast<double>(draws.size());
  for (const double drawn : draws) squares += (drawn - want) * (drawn - want) / M;
  const double own =
      verify::gamma(n, verify::unit_roundoff_fp32) * (2 * std::abs(weight) + std::abs(want));
  const double limit = verify::student_quantile(M, tail) * std::sqrt(squares * (1 + 1 / M)) + own;
  INFO("loss " << got << ", expected " << want << ", allowed " << limit);
  CHECK(std::abs(got - want) <= limit);
}

inline void check_losses(const train::Losses& got, const train::Objective& factors,
                         const Defined& want, const Noise& noise, const Config& config,
                         const Sequence& sequence) {
  const auto drawn = [&](double Losses<double>::*loss) {
    std::vector<double> all;
    for (const Losses<double>& losses : noise.losses) all.push_back(losses.*loss);
    return all;
  };
  const Index V = config.vocab_size, keys = sequence.size() + config.num_attention_heads;
  check_loss(got.lm * factors.lm, want.losses.lm, drawn(&Losses<double>::lm), V,
             got.lm_weight * factors.lm);
  check_loss(got.mtp * factors.mtp, want.losses.mtp, drawn(&Losses<double>::mtp), V,
             got.mtp_weight * factors.mtp);
  check_loss(got.balance * factors.balance, want.losses.balance, drawn(&Losses<double>::balance),
             sequence.size() + config.n_routed_experts, 0);
  double kl = 0;
  for (const double of_layer : got.kl) kl += of_layer;
  check_loss(kl * factors.kl, want.losses.kl, drawn(&Losses<double>::kl), keys,
             static_cast<double>(got.kl_rows) * static_cast<double>(got.kl.size()) * factors.kl);
}

inline Model golden_model(const std::string& name) {
  const auto dir = std::filesystem::path(source_dir()) / "data" / "gradients" / name;
  return resident(open_checkpoint(dir / "checkpoint"), Index{1} << 30);
}

}  // namespace dsa::test
