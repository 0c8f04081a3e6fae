#include "core/recipe.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <set>

#include "core/keys.hpp"
#include "core/patterns.hpp"

namespace dsa {
namespace {

constexpr double most = std::numeric_limits<double>::max();
constexpr std::array<std::string_view, 3> stage_names = {"pretrain", "warmup", "sparse"};
constexpr Index most_steps = Index{1} << 40;

/// A key that no recipe has is a mistake: the run would differ from what was meant.
void expect_keys(const Json& object, const std::set<std::string>& known, const std::string& what) {
  require(object.is_object(), what + " is not a JSON object");
  for (const auto& [key, value] : object.items())
    if (!known.contains(key)) {
      std::string all;
      for (const std::string& k : known) all += (all.empty() ? "" : ", ") + k;
      throw Error(what + " has the unknown key " + in_quotes(key) + "; a recipe knows " + all);
    }
}

Recipe::Stage stage_named(const std::string& name) {
  const auto at = std::find(stage_names.begin(), stage_names.end(), name);
  return static_cast<Recipe::Stage>(at - stage_names.begin());
}

AdamW parse_adamw(const Json& json, const std::string& what) {
  expect_keys(json,
              {"beta1", "beta2", "eps", "eps_inside_root", "bias_correction", "weight_decay",
               "decoupled", "decayed"},
              what);
  const Keys keys(json, what);
  AdamW a;
  a.beta1 = keys.number_or("beta1", 0, 1, a.beta1);
  a.beta2 = keys.number_or("beta2", 0, 1, a.beta2);
  a.eps = keys.number_or("eps", 0, most, a.eps);
  a.eps_inside_root = keys.boolean_or("eps_inside_root", a.eps_inside_root);
  a.bias_correction = keys.boolean_or("bias_correction", a.bias_correction);
  a.weight_decay = keys.number_or("weight_decay", 0, most, a.weight_decay);
  a.decoupled = keys.boolean_or("decoupled", a.decoupled);
  a.decayed = keys.text_or("decayed", {"matrices", "all"}, "matrices") == "all"
                  ? AdamW::Decayed::all
                  : AdamW::Decayed::matrices;
  return a;
}

Schedule parse_schedule(const Json& json, const std::string& what) {
  expect_keys(json, {"kind", "lr", "warmup", "steps", "final", "decay"}, what);
  const Keys keys(json, what);
  Schedule s;
  const std::string kind = keys.text_or("kind", {"constant", "cosine", "wsd"}, "constant");
  s.kind = kind == "cosine" ? Schedule::Kind::cosine
           : kind == "wsd"  ? Schedule::Kind::wsd
                            : Schedule::Kind::constant;
  s.lr = keys.number_or("lr", 0, most, s.lr);
  s.warmup = keys.maybe_integer("warmup", 0, most_steps).value_or(s.warmup);
  s.steps = keys.maybe_integer("steps", 1, most_steps).value_or(s.steps);
  s.final = keys.number_or("final", 0, 1, s.final);
  s.decay = keys.maybe_integer("decay", 0, most_steps).value_or(s.decay);
  return s;
}

std::vector<std::string> parse_patterns(const Json& json, const std::string& what) {
  require(json.is_array(), what + " is not a list of regular expressions");
  std::vector<std::string> patterns;
  for (const Json& entry : json) {
    require(entry.is_string(), what + " holds something that is no regular expression");
    patterns.push_back(entry.get<std::string>());
  }
  check_patterns(patterns, what);
  return patterns;
}

}  // namespace

double Schedule::at(Index step) const {
  const auto n = static_cast<double>(step);
  if (step < warmup) return lr * (n + 1) / static_cast<double>(warmup);
  if (kind == Kind::cosine) {
    const double past = (n - static_cast<double>(warmup)) / static_cast<double>(steps - warmup);
    const double share = (1 + std::cos(std::numbers::pi * std::min(past, 1.0))) / 2;
    return lr * (final + (1 - final) * share);
  }
  const Index decay_from = steps - decay;
  if (kind == Kind::wsd && step >= decay_from) {
    const double past = static_cast<double>(step - decay_from + 1) / static_cast<double>(decay);
    return lr * (1 - (1 - final) * std::min(past, 1.0));
  }
  return lr;
}

bool Recipe::trains(const std::string& parameter) const {
  if (parameter.ends_with("e_score_correction_bias")) return false;
  const bool of_indexer = parameter.find(".indexer.") != parameter.npos;
  if (trained.empty()) return stage == Stage::sparse || of_indexer == (stage == Stage::warmup);
  return any_matches(trained, parameter);
}

Recipe default_recipe(Recipe::Stage stage) {
  Recipe recipe;
  recipe.stage = stage;
  if (stage != Recipe::Stage::sparse) recipe.attention = Recipe::Attention::dense;
  if (stage == Recipe::Stage::pretrain) recipe.kl = 0;
  if (stage == Recipe::Stage::warmup) {
    recipe.lm = 0;
    recipe.kl = 1;
    recipe.semantics = in_warmup({});
  }
  return recipe;
}

Recipe parse_recipe(const Json& json, const std::string& what) {
  expect_keys(json,
              {"stage", "attention", "coefficients", "bias_update_rate", "semantics", "trained",
               "adamw", "clip", "accumulation", "schedule"},
              what);
  const Keys keys(json, what);
  Recipe r = default_recipe(
      stage_named(keys.text_or("stage", {"pretrain", "warmup", "sparse"}, "sparse")));
  if (keys.has("attention"))
    r.attention = keys.text("attention", {"dense", "sparse"}) == "dense"
                      ? Recipe::Attention::dense
                      : Recipe::Attention::sparse;
  if (const Json* coefficients = keys.find("coefficients")) {
    expect_keys(*coefficients, {"lm", "kl", "mtp", "balance"}, what + ": \"coefficients\"");
    const Keys c = keys.object("coefficients");
    r.lm = c.number_or("lm", 0, most, r.lm);
    r.kl = c.number_or("kl", 0, most, r.kl);
    r.mtp = c.number_or("mtp", 0, most, r.mtp);
    r.balance = c.number_or("balance", 0, most, r.balance);
  }
  r.bias_update_rate = keys.number_or("bias_update_rate", 0, most, r.bias_update_rate);
  if (const Json* semantics = keys.find("semantics")) {
    r.semantics = parse_semantics(*semantics, what + ": \"semantics\"");
    if (r.stage == Recipe::Stage::warmup) r.semantics = in_warmup(r.semantics);
  }
  if (const Json* trained = keys.find("trained"))
    r.trained = parse_patterns(*trained, what + ": \"trained\"");
  if (const Json* adamw = keys.find("adamw")) r.adamw = parse_adamw(*adamw, what + ": \"adamw\"");
  if (const Json* clip = keys.find("clip")) {
    expect_keys(*clip, {"max_norm", "eps"}, what + ": \"clip\"");
    const Keys c = keys.object("clip");
    r.clip.max_norm = c.number_or("max_norm", 0, most, r.clip.max_norm);
    r.clip.eps = c.number_or("eps", 0, most, r.clip.eps);
  }
  r.accumulation = keys.maybe_integer("accumulation", 1, 1 << 20).value_or(r.accumulation);
  if (const Json* schedule = keys.find("schedule"))
    r.schedule = parse_schedule(*schedule, what + ": \"schedule\"");
  return r;
}

Json to_json(const Recipe& r) {
  constexpr const char* kinds[] = {"constant", "cosine", "wsd"};
  return {{"stage", name_of(r.stage)},
          {"attention", r.attention == Recipe::Attention::dense ? "dense" : "sparse"},
          {"coefficients", {{"lm", r.lm}, {"kl", r.kl}, {"mtp", r.mtp}, {"balance", r.balance}}},
          {"bias_update_rate", r.bias_update_rate},
          {"semantics", to_json(r.semantics)},
          {"trained", r.trained},
          {"adamw",
           {{"beta1", r.adamw.beta1},
            {"beta2", r.adamw.beta2},
            {"eps", r.adamw.eps},
            {"eps_inside_root", r.adamw.eps_inside_root},
            {"bias_correction", r.adamw.bias_correction},
            {"weight_decay", r.adamw.weight_decay},
            {"decoupled", r.adamw.decoupled},
            {"decayed", r.adamw.decayed == AdamW::Decayed::all ? "all" : "matrices"}}},
          {"clip", {{"max_norm", r.clip.max_norm}, {"eps", r.clip.eps}}},
          {"accumulation", r.accumulation},
          {"schedule",
           {{"kind", kinds[static_cast<std::size_t>(r.schedule.kind)]},
            {"lr", r.schedule.lr},
            {"warmup", r.schedule.warmup},
            {"steps", r.schedule.steps},
            {"final", r.schedule.final},
            {"decay", r.schedule.decay}}}};
}

std::string_view name_of(Recipe::Stage stage) {
  return stage_names[static_cast<std::size_t>(stage)];
}

}  // namespace dsa
