#include "core/recipe.hpp"

#include "core/json.hpp"
#include "core/patterns.hpp"
#include "tests/catch.hpp"

using namespace dsa;
using Catch::Matchers::Contains;

TEST_CASE("a recipe survives its JSON", "[core]") {
  for (const Recipe::Stage stage :
       {Recipe::Stage::pretrain, Recipe::Stage::warmup, Recipe::Stage::sparse}) {
    Recipe recipe = default_recipe(stage);
    recipe.adamw.eps_inside_root = true;
    recipe.adamw.decayed = AdamW::Decayed::all;
    recipe.schedule = {Schedule::Kind::wsd, 0.25, 3, 40, 0.5, 7};
    recipe.trained = {"indexer", "^lm_head"};
    const Json json = to_json(recipe);
    CHECK(to_json(parse_recipe(json, "recipe.json")) == json);
  }
  CHECK(to_json(parse_recipe(Json::object(), "x")) ==
        to_json(default_recipe(Recipe::Stage::sparse)));
}

TEST_CASE("a stage says what it trains", "[core]") {
  const Recipe pretrain = default_recipe(Recipe::Stage::pretrain);
  const Recipe warmup = default_recipe(Recipe::Stage::warmup);
  const Recipe sparse = default_recipe(Recipe::Stage::sparse);
  const std::string indexer = "model.layers.0.self_attn.indexer.wk.weight", head = "lm_head.weight",
                    bias = "model.layers.1.mlp.gate.e_score_correction_bias";
  CHECK((pretrain.trains(head) && !pretrain.trains(indexer) && !pretrain.trains(bias)));
  CHECK((!warmup.trains(head) && warmup.trains(indexer) && !warmup.trains(bias)));
  CHECK((sparse.trains(head) && sparse.trains(indexer) && !sparse.trains(bias)));
  CHECK(warmup.semantics.student_keys == KlSemantics::Keys::visible);
  CHECK(parse_recipe(Json{{"stage", "warmup"}, {"semantics", "maxtext"}}, "x").semantics ==
        in_warmup(semantics_named("maxtext")));
}

TEST_CASE("schedules", "[core]") {
  const Schedule cosine{Schedule::Kind::cosine, 2, 4, 24, 0.1, 0};
  CHECK(cosine.at(0) == 0.5);
  CHECK(cosine.at(3) == 2);
  CHECK(cosine.at(4) == 2);
  CHECK(cosine.at(14) == Approx(2 * 0.55));
  CHECK(cosine.at(24) == Approx(0.2));
  const Schedule wsd{Schedule::Kind::wsd, 1, 0, 10, 0, 4};
  CHECK(wsd.at(5) == 1);
  CHECK(wsd.at(6) == 0.75);
  CHECK(wsd.at(9) == 0);
}

TEST_CASE("the semantics of the indexer's loss are switches, each of which has a name", "[core]") {
  for (const char* name : {"paper", "maxtext", "megatron", "hf-fork", "prime-rl", "xtuner"}) {
    const KlSemantics preset = semantics_named(name);
    CHECK(parse_semantics(to_json(preset), "x") == preset);
    CHECK(to_json(preset).size() == 1);
  }
  KlSemantics turned = semantics_named("megatron");
  turned.log_p.least = 1e-9;
  CHECK(to_json(turned) == Json{{"name", "megatron"}, {"log_p_least", 1e-9}});
  CHECK(parse_semantics(to_json(turned), "x") == turned);
}

TEST_CASE("a recipe that cannot be meant is one sentence", "[core]") {
  const auto fails = [](const Json& json, const std::string& with) {
    CHECK_THROWS_WITH(parse_recipe(json, "r"), Contains(with));
  };
  fails({{"lr", 1}}, "r has the unknown key \"lr\"");
  fails({{"adamw", {{"beta1", 2}}}}, "beta1");
  fails({{"stage", "both"}}, "pretrain");
  fails({{"trained", {"("}}}, "not a regular expression");
  fails({{"semantics", {{"name", "paper"}, {"student", 1}}}}, "is no switch");
  fails({{"semantics", {{"name", "paper"}, {"tokens", "median"}}}}, "mean or sum");
  fails({{"semantics", {{"teacher_keys", "visible"}}}}, "infinite");
}

TEST_CASE("patterns are searched in names", "[core]") {
  CHECK(any_matches({"^lm_head", "indexer"}, "model.layers.0.self_attn.indexer.wk.weight"));
  CHECK_FALSE(any_matches({"^indexer"}, "model.layers.0.self_attn.indexer.wk.weight"));
  CHECK_FALSE(any_matches({}, "lm_head.weight"));
  CHECK_THROWS_WITH(check_patterns({"a", "("}, "stage 1"),
                    "stage 1 holds \"(\", which is not a regular expression");
}
