#include "optimized/train/pipeline/names.hpp"

#include <algorithm>

#include "core/patterns.hpp"

namespace dsa::train {
namespace {

bool is_of_mtp(const std::string& parameter, const Config& config) {
  constexpr std::string_view layers = "model.layers.";
  if (!parameter.starts_with(layers)) return false;
  return std::stoll(parameter.substr(layers.size())) >= config.num_hidden_layers;
}

}  // namespace

std::vector<Trained> parameters_of(TrainedModel& model) {
  std::vector<Trained> all;
  for_each_tensor(model.parameters(), model.config(),
                  [&](const std::string& name, Leaf& value, const std::vector<Index>& shape) {
                    all.push_back({name, &value, nullptr, shape.size() >= 2});
                  });
  std::size_t i = 0;
  for_each_tensor(
      model.gradients(), model.config(),
      [&](const std::string&, Leaf& g, const std::vector<Index>&) { all[i++].gradient = &g; });
  return all;
}

bool gets_gradient(const std::string& parameter, const Stage& stage, const Config& config) {
  const Recipe& r = stage.recipe;
  const bool of_indexer = parameter.find(".indexer.") != parameter.npos;
  if (is_of_mtp(parameter, config)) return r.mtp > 0 && !of_indexer;
  if (of_indexer) return r.kl > 0;
  if (r.lm > 0 || r.mtp > 0 || r.balance > 0) return true;
  return r.kl > 0 && r.semantics.detach != KlSemantics::Detach::inputs;
}

std::vector<Trained> trained_by(const Stage& stage, TrainedModel& model) {
  std::vector<Trained> trained;
  for (const Trained& one : parameters_of(model))
    if (stage.recipe.trains(one.name) && gets_gradient(one.name, stage, model.config()))
      trained.push_back(one);
  for (const std::string& pattern : stage.recipe.trained)
    require(std::any_of(trained.begin(), trained.end(),
                        [&](const Trained& one) { return any_matches({pattern}, one.name); }),
            "stage " + stage.name + ": trained has " + in_quotes(pattern) +
                ", which no parameter matches that a loss of this stage reaches");
  require(!trained.empty(), "stage " + stage.name +
                                " trains nothing: no loss with a coefficient reaches a parameter "
                                "of it; a model without an indexer has no warm-up");
  return trained;
}

Index index_layers(const Config& config) {
  if (!config.indexer) return 0;
  return std::count(config.indexer->computes.begin(), config.indexer->computes.end(), true);
}

StepSize size_of(const std::vector<Batch>& parts) {
  StepSize size;
  for (const Batch& part : parts) {
    size.rows += part.rows();
    for (Index t = 0; t < part.rows(); ++t) {
      const auto i = static_cast<std::size_t>(t);
      size.documents += part.begin[i] == t ? 1 : 0;
      size.weight += static_cast<double>(part.target_weight[i]);
      if (part.has_next(t) && part.has_next(t + 1))
        size.mtp_weight += static_cast<double>(part.target_weight[i + 1]);
    }
  }
  return size;
}

Objective objective_of(const Recipe& recipe, const Config& config, const StepSize& size) {
  const auto share = [](double coefficient, double of) { return of > 0 ? coefficient / of : 0; };
  Objective o;
  o.attention = recipe.attention;
  o.semantics = recipe.semantics;
  o.lm = share(recipe.lm, size.weight);
  o.mtp = share(recipe.mtp, size.mtp_weight);
  o.balance = share(recipe.balance, static_cast<double>(size.documents));
  using Reduction = KlSemantics::Reduction;
  const bool mean_of_rows = recipe.semantics.tokens == Reduction::mean;
  const bool mean_of_layers = recipe.semantics.layers == Reduction::mean;
  o.kl = share(recipe.kl, mean_of_rows ? static_cast<double>(size.rows) : 1);
  o.kl = share(o.kl, mean_of_layers ? static_cast<double>(index_layers(config)) : 1);
  return o;
}

}  // namespace dsa::train
