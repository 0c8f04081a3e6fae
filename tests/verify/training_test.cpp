// dsa-verify training: a right run passes, a defect of the optimiser is named.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/checkpoint.hpp"
#include "core/file.hpp"
#include "core/json.hpp"
#include "core/safetensors.hpp"
#include "reference/model/backward.hpp"
#include "tests/catch.hpp"
#include "tests/paths.hpp"
#include "tests/scratch.hpp"
#include "verify/training/defects.hpp"
#include "verify/training/judge.hpp"
#include "verify/training/recipe_of.hpp"
#include "verify/training/report.hpp"
#include "verify/training/turned.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

const fs::path folder = fs::path(source_dir()) / "data/gradients/v32calm";
const std::string calm = (folder / "checkpoint").string();

std::string bundled(const std::string& name) {
  return (folder / ("trajectory." + name + ".safetensors")).string();
}

const Model& model() {
  static const Model loaded = resident(open_checkpoint(calm), Index{1} << 30);
  return loaded;
}

struct Stored {
  Dtype dtype;
  std::vector<Index> shape;
  std::vector<double> values;
};
using Tensors = std::map<std::string, Stored>;

void write(const fs::path& file, const Tensors& tensors, const std::string& recipe) {
  std::vector<SafetensorsWriter::Declaration> declared;
  for (const auto& [name, t] : tensors) declared.push_back({name, t.dtype, t.shape});
  SafetensorsWriter out(file, declared,
                        recipe.empty() ? std::map<std::string, std::string>{}
                                       : std::map<std::string, std::string>{{"recipe", recipe}});
  for (const auto& [name, t] : tensors) out.append_values(t.values);
  out.commit();
}

/// What a trainer of two tiny batches prints.
Tensors trained(const Procedure& procedure, Index steps, Index S) {
  Tensors out;
  Stored& tokens = out["tokens"] = {Dtype::i64, {steps, 2, S}, {}};
  Replay replay(model(), procedure, {"loss.lm", "loss.kl", "grad_norm", "lr"});
  for (Index n = 0; n < steps; ++n) {
    std::vector<Sequence> batch;
    for (Index b = 0; b < 2; ++b) {
      std::vector<Token> row;
      for (Index t = 0; t < S; ++t) row.push_back((7 * t * t + 31 * t + 13 * b + 5 * n) % 227);
      tokens.values.insert(tokens.values.end(), row.begin(), row.end());
      batch.push_back(plain_sequence(std::move(row)));
    }
    for (const auto& [name, value] : replay.step(reference::join(batch))) {
      out[name].dtype = Dtype::f64;
      out[name].values.push_back(value);
      out[name].shape = {n + 1};
    }
  }
  for (const char* parameter :
       {"model.layers.0.self_attn.indexer.k_norm.bias",
        "model.layers.1.self_attn.indexer.weights_proj.weight", "model.norm.weight"}) {
    const std::vector<double>& values = replay[parameter];
    const std::string name = parameter;
    const auto n = static_cast<Index>(values.size());
    out["final." + name] = {
        Dtype::f64,
        name.ends_with("proj.weight") ? std::vector<Index>{24, n / 24} : std::vector<Index>{n},
        values};
  }
  return out;
}

/// Three quick steps of the sparse stage whose clip and schedule both act.
Recipe quick_recipe() {
  Recipe recipe = default_recipe(Recipe::Stage::sparse);
  recipe.kl = 1;
  recipe.clip.max_norm = 0.3;
  recipe.schedule = {Schedule::Kind::cosine, 1e-3, 1, 3, 0.1, 0};
  return recipe;
}

TrainingVerdict judged(const Tensors& tensors, const Recipe& recipe) {
  const Scratch scratch;
  const std::string file = (scratch / "run.safetensors").string();
  write(file, tensors, to_json(recipe).dump());
  return judge_training(calm, file, "", {});
}

}  // namespace

TEST_CASE("torch's warm-up follows its recipe, and so does a file without one",
          "[training][judge][slow]") {
  const TrainingVerdict v = judge_training(calm, bundled("warmup"), "", {});
  INFO(v.why);
  CHECK(v.outcome == Outcome::pass);
  CHECK(v.precision == "fp64");
  CHECK(v.quantities.size() == 4);
  CHECK(v.finals.size() == 5);
  CHECK(to_json(v)["exit_code"] == 0);
}

TEST_CASE("torch's run without its clip is named", "[training][judge][slow]") {
  const TrainingVerdict v =
      judge_training(calm, bundled("warmup.cosine"), bundled("warmup.twin-no-clip"), {});
  INFO(v.why);
  CHECK(v.outcome == Outcome::fail);
  REQUIRE_FALSE(v.causes.empty());
  CHECK(v.causes.front().name == "no-clip");
  CHECK(v.first_departure == "loss.kl of step 1");
}

TEST_CASE("a defect of the optimiser is named by its replay", "[training][judge]") {
  const Recipe recipe = quick_recipe();
  const TrainingVerdict right = judged(trained({recipe}, 2, 24), recipe);
  INFO(right.why);
  CHECK(right.outcome == Outcome::pass);
  CHECK(right.causes.empty());
  const std::string wanted =
      GENERATE("clip-per-parameter", "schedule-early", "betas-swapped", "decay-on-all", "l2-decay");
  for (const TrainingDefect& defect : training_defects(2, true)) {
    if (defect.name != wanted) continue;
    Procedure procedure{recipe};
    defect.alter(procedure);
    const TrainingVerdict v = judged(trained(procedure, 2, 24), recipe);
    INFO(wanted << ": " << v.why);
    CHECK(v.outcome == Outcome::fail);
    CHECK(std::any_of(v.causes.begin(), v.causes.end(),
                      [&](const KnownCause& cause) { return cause.name == wanted; }));
    CHECK_THAT(table(v, false), Contains("explained by") && Contains(wanted));
  }
}

TEST_CASE("what departs from a recipe is named by step and quantity", "[training][judge]") {
  const Recipe recipe = quick_recipe();
  Tensors tensors = trained({recipe}, 2, 24);
  SECTION("a loss") {
    tensors.at("loss.lm").values[1] *= 1 + 1e-6;
    const TrainingVerdict v = judged(tensors, recipe);
    CHECK(v.outcome == Outcome::fail);
    CHECK(v.first_departure == "loss.lm of step 1");
    CHECK(v.causes.empty());
    CHECK_THAT(v.why, Contains("no known defect explains it"));
  }
  SECTION("a NaN") {
    tensors.at("grad_norm").values[0] = std::numeric_limits<double>::quiet_NaN();
    CHECK(judged(tensors, recipe).first_departure == "grad_norm of step 0");
  }
  SECTION("a final parameter") {
    tensors.at("final.model.norm.weight").values[2] += 1e-9;
    const TrainingVerdict v = judged(tensors, recipe);
    CHECK(v.outcome == Outcome::fail);
    CHECK(v.first_departure == "final model.norm.weight");
  }
}

TEST_CASE("a frozen parameter that moved is named", "[training][judge]") {
  Recipe recipe = default_recipe(Recipe::Stage::warmup);
  recipe.schedule = {Schedule::Kind::constant, 1e-3, 0, 2, 0, 0};
  Tensors tensors = trained({recipe}, 1, 24);
  CHECK(judged(tensors, recipe).outcome == Outcome::pass);
  tensors.at("final.model.norm.weight").values[5] *= 1 + 1e-6;
  const TrainingVerdict v = judged(tensors, recipe);
  CHECK(v.outcome == Outcome::fail);
  CHECK(v.first_departure == "final model.norm.weight");
  CHECK_THAT(to_html(v), Contains("heat3") && Contains("model.norm.weight"));
  CHECK_THAT(to_junit(v), Contains("failures=\"2\"") && Contains("loss.kl"));
  CHECK(std::any_of(v.finals.begin(), v.finals.end(),
                    [](const FinalResult& r) { return r.frozen && !r.ok(); }));
}

TEST_CASE("without a recipe, stage, schedule and clip are read from the run", "[training][judge]") {
  const Trajectory run = read_trajectory(bundled("warmup.twin-no-clip"), model().config);
  CHECK(run.recipe.empty());
  const KnownRecipe known = recipe_of(run, model(), "");
  CHECK(known.assumed);
  CHECK(known.recipe.stage == Recipe::Stage::warmup);
  CHECK(known.recipe.schedule.kind == Schedule::Kind::cosine);
  CHECK(known.recipe.schedule.warmup == 5);
  CHECK(known.recipe.schedule.lr == 1e-3);
  CHECK_THAT(known.from, Contains("assumed") && Contains("cosine"));
}

TEST_CASE("files that are no runs of this model are refused in a sentence", "[training][judge]") {
  const Scratch scratch;
  const std::string file = (scratch / "run.safetensors").string();
  const Recipe recipe = quick_recipe();
  Tensors tensors = trained({recipe}, 1, 8);
  const auto refused = [&](const std::string& text) {
    write(file, tensors, text);
    return judge_training(calm, file, "", {});
  };
  const std::string json = to_json(recipe).dump();
  SECTION("tokens of one step only") {
    tensors.at("tokens").shape = {2, 8};
    CHECK_THROWS_WITH(refused(json), Contains("expected (steps, sequences, positions)"));
  }
  SECTION("a quantity of another number of steps") {
    tensors.at("lr") = {Dtype::f64, {2}, {1, 1}};
    CHECK_THROWS_WITH(refused(json), Contains("lr has shape (2)") && Contains("1 steps"));
  }
  SECTION("nothing but tokens") {
    for (const char* gone : {"loss.lm", "loss.kl", "grad_norm", "lr"}) tensors.erase(gone);
    std::erase_if(tensors, [](const auto& t) { return t.first.starts_with("final."); });
    CHECK_THROWS_WITH(refused(json), Contains("nor final parameters"));
  }
  SECTION("a parameter of another model") {
    tensors["final.model.layers.0.nothing"] = {Dtype::f64, {1}, {1}};
    CHECK_THROWS_WITH(refused(json), Contains("a parameter that the model does not have"));
  }
  SECTION("a recipe that is none") {
    CHECK_THROWS_WITH(refused("{"), Contains("is no JSON, expected a recipe"));
    CHECK_THROWS_WITH(refused(R"({"rate": 1})"), Contains("unknown key"));
  }
  SECTION("parts that a batch has not") {
    CHECK_THROWS_WITH(refused(R"({"accumulation": 3})"), Contains("3 equal parts"));
  }
  SECTION("rates that follow no schedule") {
    Tensors odd = trained({recipe}, 3, 8);
    odd.at("lr").values = {1, 3, 2};
    tensors = odd;
    CHECK_THROWS_WITH(refused(""), Contains("--recipe FILE.json"));
  }
}

TEST_CASE("a run is followed through a decision that rounding turned", "[training][judge]") {
  Recipe recipe = default_recipe(Recipe::Stage::warmup);
  recipe.schedule = {Schedule::Kind::constant, 1e-3, 0, 2, 0, 0};
  const Scratch scratch;
  const std::string file = (scratch / "run.safetensors").string();
  write(file, trained({recipe}, 2, 24), "");
  Trajectory run = read_trajectory(file, model().config);

  // The dot product nearest to the ReLU's kink in the first step, and a run that falls on its other
  // side there.
  const std::string name = "model.layers.2.self_attn.indexer.scores";
  Replay plain(model(), {recipe}, {"loss.lm"});
  Decisions seen;
  Watch watch(seen, nullptr);
  plain.before_update(run.batches[0], watch.alter(), watch.tap());
  const IndexDots& dots = seen.dots.at(name);
  NearDecision nearest{NearDecision::Kind::kink, 0, name, 0, 0, 0, 1e300, 1e300};
  for (Index t = 0; t < 24; ++t)
    for (Index s = 0; s < t; ++s)
      for (Index h = 0; h < dots.q.shape()[1]; ++h)
        if (std::abs(dots.at(t, h, s)) < nearest.margin)
          nearest = {NearDecision::Kind::kink, 0, name, t, s, h, std::abs(dots.at(t, h, s)), 1};
  Replay other(model(), {recipe}, {"loss.lm", "loss.kl", "grad_norm", "lr"});
  Decisions unused;
  Watch turning(unused, nullptr, {nearest});
  run.steps[0] = other.step(run.batches[0], turning.alter(), turning.tap());
  run.steps[1] = other.step(run.batches[1]);
  run.finals.clear();

  const TrainingOptions options;
  Rehearsal rehearsal = rehearse(model(), recipe, run, reference::Precision::fp64, options);
  const TrainingLimits limits(rehearsal, model(), recipe, run, reference::Precision::fp64, options);
  const Comparison comparison(run, rehearsal, limits);
  CHECK(comparison.of_step(1, rehearsal.base[1]) > 1);
  const Turned without = turn_decisions(comparison, rehearsal, run.batches);
  CHECK_FALSE(without.explains);
  CHECK_FALSE(without.may_explain);
  CHECK(without.first == -1);

  NearDecision irrelevant = nearest;
  irrelevant.row += nearest.row < 23 ? 1 : -1;
  rehearsal.near[0] = {irrelevant, nearest};
  rehearsal.before.emplace(0, Replay(model(), {recipe}, {"loss.lm", "loss.kl"}));
  const Turned with = turn_decisions(comparison, rehearsal, run.batches);
  CHECK(with.explains);
  REQUIRE(with.turns.size() == 1);
  CHECK(with.turns.front().row == nearest.row);
  CHECK_THAT(in_words(with.turns.front()), Contains("ReLU's kink") && Contains("step 0"));
}
