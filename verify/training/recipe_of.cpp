#include "verify/training/recipe_of.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/file.hpp"
#include "core/json.hpp"
#include "verify/training/replay.hpp"

namespace dsa::verify {
namespace {

constexpr double same_rate = 1e-6;  // relative; rates are printed in float32, too
constexpr double usual_clips[] = {1, 0, 0.5, 2, 5, 0.1, 0.05, 0.01, 0.005, 0.001};
constexpr Index tried_steps = 4;  // a clip shows from the second step on

Recipe::Stage stage_of(const Trajectory& t, const Model& model) {
  if (!model.config.indexer) return Recipe::Stage::pretrain;
  if (t.finals.empty())
    return t.records("loss.kl") ? Recipe::Stage::sparse : Recipe::Stage::pretrain;
  Index of_indexer = 0;
  for (const auto& [name, stored] : t.finals) of_indexer += name.find(".indexer.") != name.npos;
  return of_indexer == static_cast<Index>(t.finals.size()) ? Recipe::Stage::warmup
         : of_indexer == 0                                 ? Recipe::Stage::pretrain
                                                           : Recipe::Stage::sparse;
}

bool fits(const Schedule& schedule, const Trajectory& t) {
  for (Index n = 0; n < t.size(); ++n) {
    const double rate = t.steps[static_cast<std::size_t>(n)].at("lr");
    if (!(std::abs(schedule.at(n) - rate) <= same_rate * schedule.lr)) return false;
  }
  return true;
}

/// A schedule with these rates, shortest warm-up first.
Schedule schedule_of(const Trajectory& t) {
  Schedule schedule;
  schedule.steps = t.size();
  if (!t.records("lr")) return schedule;
  schedule.lr = 0;
  for (const StepRecord& step : t.steps) schedule.lr = std::max(schedule.lr, step.at("lr"));
  for (schedule.warmup = 0; schedule.warmup < t.size(); ++schedule.warmup) {
    for (const auto kind : {Schedule::Kind::constant, Schedule::Kind::cosine, Schedule::Kind::wsd})
      for (schedule.decay = 0; schedule.decay < t.size(); ++schedule.decay) {
        schedule.kind = kind;
        if (fits(schedule, t)) return schedule;
        if (kind != Schedule::Kind::wsd) break;
      }
  }
  throw Error(t.path.string() +
              ": its rates (lr) are neither constant, cosine nor warm-up-stable-decay to 0; say "
              "how it was trained with --recipe FILE.json");
}

/// Relative error of the first steps under a recipe.
double error_of(const Recipe& recipe, const Trajectory& t, const Model& model) {
  std::vector<std::string> recorded;
  for (const auto& [name, value] : t.steps.front()) recorded.push_back(name);
  Replay replay(model, {recipe}, recorded);
  double worst = 0;
  for (Index n = 0; n < std::min(tried_steps, t.size()); ++n) {
    const auto i = static_cast<std::size_t>(n);
    const StepRecord mine = replay.step(t.batches[i]);
    for (const auto& [name, value] : t.steps[i])
      if (mine.contains(name))
        worst = std::max(worst, std::abs(value - mine.at(name)) / std::abs(mine.at(name)));
  }
  return worst;
}

void choose_clip(Recipe& recipe, const Trajectory& t, const Model& model) {
  const double near = t.precision == "fp64" ? 1e-9 : t.precision == "hf-fp32" ? 1e-5 : 1e-2;
  const double usual = recipe.clip.max_norm;
  for (const double limit : usual_clips) {
    recipe.clip.max_norm = limit;
    if (error_of(recipe, t, model) < near) return;
  }
  recipe.clip.max_norm = usual;
}

KnownRecipe assumed(const Trajectory& t, const Model& model) {
  Recipe recipe = default_recipe(stage_of(t, model));
  if (!model.config.indexer) recipe.kl = 0;
  recipe.schedule = schedule_of(t);
  choose_clip(recipe, t, model);
  constexpr const char* kinds[] = {"constant", "cosine", "warm-up-stable-decay"};
  const std::string clip =
      recipe.clip.max_norm == 0 ? "no clip" : fmt::format("a clip at {}", recipe.clip.max_norm);
  return {recipe,
          fmt::format("assumed, since nobody says it: stage {}, a {} rate of {} with {} steps of "
                      "warm-up, {}, and the defaults of docs/judging_training.md",
                      name_of(recipe.stage), kinds[static_cast<std::size_t>(recipe.schedule.kind)],
                      recipe.schedule.lr, recipe.schedule.warmup, clip),
          true};
}

Recipe parsed(const std::string& text, const std::string& what) {
  const Json json = Json::parse(text, nullptr, false);
  require(!json.is_discarded(), what + " is no JSON, expected a recipe (docs/judging_training.md)");
  return parse_recipe(json, what);
}

}  // namespace

KnownRecipe recipe_of(const Trajectory& t, const Model& model, const std::string& file) {
  if (!file.empty()) return {parsed(read_text(file), file), file};
  if (t.recipe.empty()) return assumed(t, model);
  const std::string from = "the metadata of " + t.path.string();
  return {parsed(t.recipe, from), from};
}

}  // namespace dsa::verify
