#include "optimized/train/pipeline/settings.hpp"

#include <cmath>

#include "optimized/train/commands/overrides.hpp"
#include "optimized/train/pipeline/keys.hpp"
#include "optimized/train/pipeline/stage.hpp"
#include "tests/catch.hpp"

using namespace dsa;
using namespace dsa::train;
using Catch::Matchers::Contains;

namespace {

constexpr const char* two_stages = R"(
[run]
seed = 7
[data]
source = "synthetic:copy"
[[stage]]
kind = "warmup"
[[stage]]
kind = "sparse"
name = "long"
lr = 1e-4
)";

Settings parsed(const std::vector<std::string>& overrides, const std::string& text = two_stages) {
  return Settings::parse(text, "run.toml", overrides);
}

void fails(const std::string& text, const std::string& with) {
  CHECK_THROWS_WITH(Settings::parse(text, "run.toml", {}), Contains(with));
}

}  // namespace

TEST_CASE("a value is the command line's, then the file's, then its default", "[train]") {
  const Settings s = parsed({"run.seed=9", "stage.steps=5", "stage[1].steps=6"});
  CHECK(s.integer("run.seed") == 9);
  CHECK(s.at(0, "steps") == 5);
  CHECK(s.at(1, "steps") == 6);
  CHECK(s.at(1, "lr") == 1e-4);
  CHECK(s.at(0, "lr") == 1e-3);  // of a warm-up
  CHECK(s.at(0, "attention") == "dense");
  CHECK(s.at(1, "attention") == "sparse");
  CHECK(parsed({"stage.long.lr=1", "stage.warmup.lr=2"}).at(1, "lr") == 1);
  CHECK(parsed({"stage.long.lr=1", "stage.warmup.lr=2"}).at(0, "lr") == 2);
}

TEST_CASE("the printed configuration has every key with type, default and source", "[train]") {
  const std::string text = parsed({"learning_rate=0.5"}).print();
  CHECK_THAT(text, Contains("seed = 7"));
  CHECK_THAT(text, Contains("# integer, default 0, run.toml:3"));
  CHECK_THAT(text, Contains("# number, default 0.0003, command line, as learning_rate"));
  for (const Key& key : all_keys()) CHECK_THAT(text, Contains(key.about));
}

TEST_CASE("config.toml of a run reads back as the same run", "[train]") {
  const Settings s = parsed({"stage.trained=['a', 'b']", "optimizer.eps=1e-9"});
  const Settings again = Settings::parse(s.toml(), "config.toml", {});
  CHECK(again.that_changes_numbers() == s.that_changes_numbers());
  CHECK(again.toml() == s.toml());
  CHECK(difference(s.that_changes_numbers(), again.that_changes_numbers()).empty());
}

TEST_CASE("a difference names keys and both values; where a run lies is none", "[train]") {
  const Json a = parsed({}).that_changes_numbers();
  CHECK(difference(parsed({"run.seed=8"}).that_changes_numbers(), a) == "run.seed: 8, was 7");
  CHECK(difference(parsed({"run.out=x", "run.threads=3"}).that_changes_numbers(), a).empty());
}

TEST_CASE("other trainers' flags are understood in our terms", "[train]") {
  CHECK(parsed({"indexer_loss_scaling_factor=0.25"}).at(1, "kl") == 0.25);
  CHECK(parsed({"indexer_kl_coef=0.25"}).at(0, "kl") == 0.25);
  CHECK(parsed({"dsa-indexer-loss-coeff=0.25"}).at(1, "kl") == 0.25);
  CHECK(parsed({"indexer_sparse_training=false"}).at(1, "kind") == "warmup");
  CHECK(parsed({"max_target_length=99"}).integer("data.seq") == 99);
  CHECK(parsed({"detach_indexer_input=true"}).text("semantics.detach") == "query_latent");
  CHECK(parsed({"dsa_indexer_use_sparse_loss=false"}).text("semantics.student_keys") == "visible");
  CHECK(parsed({"warmup_steps_fraction=0.25", "stage.steps=8"}).at(0, "warmup") == 0.25);
  CHECK(parsed({"stage=dense_warmup"}).at(1, "kind") == "warmup");
  CHECK(parsed({"nk=5"}).integer("run.keep_last") == 5);
  CHECK_THROWS_WITH(parsed({"capacity_factor=1.25"}), Contains("no token is dropped here"));
  const Settings in_file = parsed({}, std::string("learning_rate = 0.5\n") + two_stages);
  CHECK(in_file.at(0, "lr") == 0.5);
}

TEST_CASE("flags on the command line become overrides", "[train]") {
  const Words words =
      words_of({"a.toml", "--dsa-indexer-loss-coeff", "0.01", "-y", "1", "--init-indexer",
                "run.seed=3", "--semantics=maxtext", "--lr", "-1"});
  CHECK(words.config == "a.toml");
  CHECK(words.overrides == std::vector<std::string>{"dsa-indexer-loss-coeff=0.01", "y=1",
                                                    "init-indexer=true", "run.seed=3",
                                                    "semantics=maxtext", "lr=-1"});
  CHECK_THROWS_WITH(words_of({"a.toml", "b.toml"}), Contains("two configurations"));
}

TEST_CASE("a configuration that cannot be meant is one sentence with its line", "[train]") {
  const std::string stage = "[data]\nsource = \"synthetic:copy\"\n[[stage]]\n";
  fails(stage + "stepz = 3\n",
        "run.toml:4: there is no key stage.stepz; did you mean stage.steps?");
  fails(stage + "steps = \"many\"\n", "run.toml:4: stage.steps is \"many\", expected an integer");
  fails(stage + "lr = nan\n", "run.toml:4: stage.lr is NaN, expected a finite number");
  fails(stage + "lr = -1.0\n", "stage.lr is -1.0");
  fails(stage + "kind = \"both\"\n", "expected pretrain, warmup, sparse, sft or lora");
  fails("[run]\nseed = 1\n", "has no [[stage]]");
  fails("[run\n", "run.toml:1: this is not TOML");
  fails("[stage]\nsteps = 1\n", "expected [[stage]]");
  fails(stage + "[run]\nout = [[1]]\n", "is a list of lists");
  CHECK_THROWS_WITH(parsed({"run.seed"}), Contains("is no override"));
  CHECK_THROWS_WITH(parsed({"stage[2].lr=1"}), Contains("names no stage"));
  CHECK_THROWS_WITH(parsed({"stage.lr=nan"}), Contains("the command line: stage.lr is NaN"));
}

TEST_CASE("a stage is its kind's defaults and what is said of it", "[train]") {
  const std::vector<Stage> stages =
      stages_of(parsed({"stage.warmup.warmup=0.5", "stage[0].steps=9", "semantics.name=maxtext",
                        "semantics.tokens=sum"}));
  CHECK(stages[0].recipe.schedule.warmup == 4);
  CHECK(stages[0].recipe.lm == 0);
  CHECK(stages[0].recipe.semantics.student_keys == KlSemantics::Keys::visible);
  CHECK(stages[1].name == "long");
  CHECK(stages[1].recipe.semantics.log_p.added == 1e-8);
  CHECK(stages[1].recipe.semantics.tokens == KlSemantics::Reduction::sum);
  CHECK(stages[1].recipe.semantics.student_keys == KlSemantics::Keys::chosen);
}

TEST_CASE("a stage with sources of its own has weights of its own", "[train]") {
  const std::vector<Stage> stages =
      stages_of(parsed({"data.source=[\"synthetic:copy\", \"synthetic:recall\"]",
                        "data.weights=[1, 3]", "stage[0].source=[\"synthetic:needle\"]"}));
  CHECK(stages[0].weights == std::vector<double>{1});
  CHECK(stages[1].weights == std::vector<double>{1, 3});
}

TEST_CASE("a stage that contradicts itself is refused", "[train]") {
  const auto refused = [](const std::vector<std::string>& overrides, const std::string& with) {
    CHECK_THROWS_WITH(stages_of(parsed(overrides)), Contains(with));
  };
  refused({"stage.accumulation=3"}, "no multiple of accumulation");
  refused({"data.source=[]"}, "has no source of data");
  refused({"data.weights=[1, 2]"}, "2 weights for 1 sources");
  refused({"data.weights=[0]"}, "are all 0");
  refused({"stage.levels=[]"}, "levels must be");
  refused({"stage.kl=0"}, "nothing is trained");
  refused({"stage.kind=lora"}, "has no lora_targets");
  refused({"stage.lora_targets=[\"x\"]"}, "its kind is not lora");
  refused({"stage.trained=[\"(\"]"}, "not a regular expression");
}
