#include "optimized/train/pipeline/stage.hpp"

#include <algorithm>
#include <cmath>

#include "core/check.hpp"
#include "core/patterns.hpp"

namespace dsa::train {
namespace {

constexpr const char* all_but_the_indexer = R"(^(?!.*\.indexer\.))";

StageKind kind_named(const std::string& word) {
  constexpr const char* names[] = {"pretrain", "warmup", "sparse", "sft", "lora"};
  const auto at = std::find(std::begin(names), std::end(names), word);
  return static_cast<StageKind>(at - std::begin(names));
}

Index steps_of(double given, Index steps) {
  return static_cast<Index>(given < 1 ? std::floor(given * static_cast<double>(steps)) : given);
}

KlSemantics semantics_of(const Settings& settings) {
  constexpr std::string_view section = "semantics.";
  Json json;
  for (const char* key : {"name", "teacher_softmax", "teacher_keys", "student_keys", "tokens",
                          "layers", "detach", "student_scaled", "padding_counted"}) {
    const std::string word = settings.text(std::string(section) + key);
    if (word == "as named") continue;
    json[key] = word == "true" ? Json(true) : word == "false" ? Json(false) : Json(word);
  }
  for (const char* key :
       {"l1_added", "l1_least", "log_p_added", "log_p_least", "log_q_added", "log_q_least"})
    if (const double x = settings.number(std::string(section) + key); x >= 0) json[key] = x;
  return parse_semantics(json, "[semantics]");
}

AdamW adamw_of(const Settings& s) {
  AdamW a;
  a.beta1 = s.number("optimizer.beta1");
  a.beta2 = s.number("optimizer.beta2");
  a.eps = s.number("optimizer.eps");
  a.eps_inside_root = s.flag("optimizer.eps_inside_root");
  a.bias_correction = s.flag("optimizer.bias_correction");
  a.weight_decay = s.number("optimizer.weight_decay");
  a.decoupled = s.flag("optimizer.decoupled");
  a.decayed = s.text("optimizer.decayed") == "all" ? AdamW::Decayed::all : AdamW::Decayed::matrices;
  return a;
}

/// The settings of one stage, read by the names of its keys.
struct Reader {
  const Settings& settings;
  std::size_t stage;

  template <class T>
  T get(const char* key) const {
    return settings.at(stage, key).get<T>();
  }
  template <class T>
  std::vector<T> list_or(const char* key, const char* of_run) const {
    const auto own = get<std::vector<T>>(key);
    return own.empty() ? settings.at(of_run).get<std::vector<T>>() : own;
  }
};

Schedule schedule_of(const Reader& r) {
  const std::string kind = r.get<std::string>("schedule");
  Schedule s;
  s.kind = kind == "cosine" ? Schedule::Kind::cosine
           : kind == "wsd"  ? Schedule::Kind::wsd
                            : Schedule::Kind::constant;
  s.lr = r.get<double>("lr");
  s.steps = r.get<Index>("steps");
  s.warmup = steps_of(r.get<double>("warmup"), s.steps);
  s.final = r.get<double>("final");
  s.decay = steps_of(r.get<double>("decay"), s.steps);
  return s;
}

Recipe recipe_of(const Reader& r, StageKind kind) {
  const bool is_warmup = kind == StageKind::warmup;
  Recipe recipe = default_recipe(kind == StageKind::pretrain ? Recipe::Stage::pretrain
                                 : is_warmup                 ? Recipe::Stage::warmup
                                                             : Recipe::Stage::sparse);
  recipe.attention = r.get<std::string>("attention") == "dense" ? Recipe::Attention::dense
                                                                : Recipe::Attention::sparse;
  recipe.lm = r.get<double>("lm");
  recipe.kl = r.get<double>("kl");
  recipe.mtp = r.get<double>("mtp");
  recipe.balance = r.get<double>("balance");
  recipe.bias_update_rate = r.get<double>("bias_update_rate");
  recipe.semantics = semantics_of(r.settings);
  // Without a selection there are no chosen keys.
  if (recipe.attention == Recipe::Attention::dense) recipe.semantics = in_warmup(recipe.semantics);
  recipe.trained = r.get<std::vector<std::string>>("trained");
  if (recipe.trained.empty() && kind == StageKind::sft) recipe.trained = {all_but_the_indexer};
  recipe.adamw = adamw_of(r.settings);
  recipe.clip = {r.settings.number("optimizer.clip"), r.settings.number("optimizer.clip_eps")};
  recipe.accumulation = r.get<Index>("accumulation");
  recipe.schedule = schedule_of(r);
  return recipe;
}

void check_stage(const Stage& s, std::size_t i) {
  const std::string what = "stage[" + std::to_string(i) + "], " + s.name;
  require(s.batch % s.recipe.accumulation == 0, what + ": batch is " + std::to_string(s.batch) +
                                                    ", no multiple of accumulation, " +
                                                    std::to_string(s.recipe.accumulation));
  require(!s.sources.empty(), what + " has no source of data; set data.source or its source");
  require(s.weights.size() == s.sources.size(),
          what + " has " + std::to_string(s.weights.size()) + " weights for " +
              std::to_string(s.sources.size()) + " sources; give one each");
  double sum = 0;
  for (const double weight : s.weights) sum += weight;
  require(sum > 0, what + ": the weights of the sources are all 0");
  require(!s.levels.empty() && *std::min_element(s.levels.begin(), s.levels.end()) > 0,
          what + ": levels must be a list of integers, each 1 or more");
  require(s.recipe.lm > 0 || s.recipe.kl > 0 || s.recipe.mtp > 0 || s.recipe.balance > 0,
          what + ": the coefficients of all losses are 0, nothing is trained");
  require(s.kind != StageKind::lora || !s.lora.targets.empty(),
          what + " has no lora_targets; name the matrices, such as [\"q_b_proj\", \"o_proj\"]");
  require(s.kind == StageKind::lora || s.lora.targets.empty(),
          what + " has lora_targets, but its kind is not lora");
  check_patterns(s.recipe.trained, what + ": trained");
  check_patterns(s.lora.targets, what + ": lora_targets");
}

Stage stage_of(const Settings& settings, std::size_t i) {
  const Reader r{settings, i};
  Stage s;
  s.kind = kind_named(r.get<std::string>("kind"));
  s.name = r.get<std::string>("name");
  if (s.name.empty()) s.name = r.get<std::string>("kind");
  s.steps = r.get<Index>("steps");
  s.recipe = recipe_of(r, s.kind);
  s.batch = r.get<Index>("batch") > 0 ? r.get<Index>("batch") : settings.integer("data.batch");
  s.seq = r.get<Index>("seq") > 0 ? r.get<Index>("seq") : settings.integer("data.seq");
  s.sources = r.list_or<std::string>("source", "data.source");
  const bool has_own_sources = !r.get<std::vector<std::string>>("source").empty();
  s.weights = has_own_sources ? r.get<std::vector<double>>("weights")
                              : r.list_or<double>("weights", "data.weights");
  if (s.weights.empty()) s.weights.assign(s.sources.size(), 1);
  s.every_target = r.get<std::string>("loss_on") == "all";
  s.levels = r.get<std::vector<Index>>("levels");
  s.advance_at = r.get<double>("advance_at");
  s.level_steps = r.get<Index>("level_steps");
  s.until_accuracy = r.get<double>("until_accuracy");
  s.lora = {r.get<std::vector<std::string>>("lora_targets"), r.get<Index>("lora_r"),
            r.get<double>("lora_alpha")};
  check_stage(s, i);
  return s;
}

}  // namespace

std::vector<Stage> stages_of(const Settings& settings) {
  std::vector<Stage> stages;
  for (std::size_t i = 0; i < settings.stages(); ++i) stages.push_back(stage_of(settings, i));
  return stages;
}

}  // namespace dsa::train
