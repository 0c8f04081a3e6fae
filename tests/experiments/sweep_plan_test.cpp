// What a sweep expands to, how it is frozen, and the sentences about sweeps that are none.
#include <set>

#include "core/check.hpp"
#include "core/json.hpp"
#include "experiments/sweep/plan.hpp"
#include "tests/catch.hpp"
#include "tests/experiments/sweep_helpers.hpp"
#include "tests/paths.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;
using Strings = std::vector<std::string>;

TEST_CASE("values of an axis are lists and ranges", "[sweep]") {
  CHECK(parse_axis("topk=16,32").values == Strings{"16", "32"});
  CHECK(parse_axis("seed=range(0,4)").values == Strings{"0", "1", "2", "3"});
  CHECK(parse_axis("seed=range(0,8,3),9").values == Strings{"0", "3", "6", "9"});
  CHECK(parse_axis("stage.levels=[1,2],[4]").values == Strings{"[1,2]", "[4]"});
  CHECK(parse_axis("coefficient=1e-3,0.1").values == Strings{"1e-3", "0.1"});
}

TEST_CASE("an axis that is none is refused in a sentence", "[sweep]") {
  CHECK_THROWS_WITH(parse_axis("topk"), Contains("is no axis; write NAME=VALUE,VALUE"));
  CHECK_THROWS_WITH(parse_axis("=3"), Contains("is no axis"));
  CHECK_THROWS_WITH(parse_axis("topkk=3"),
                    Contains("there is no axis \"topkk\"; give topk, context"));
  CHECK_THROWS_WITH(parse_axis("topk=0"),
                    Contains("cannot take \"0\"; expected an integer from 1"));
  CHECK_THROWS_WITH(parse_axis("topk=1.5"), Contains("cannot take \"1.5\""));
  CHECK_THROWS_WITH(parse_axis("coefficient=nan"), Contains("cannot take \"nan\""));
  CHECK_THROWS_WITH(parse_axis("teacher=both"), Contains("expected chosen or visible"));
  CHECK_THROWS_WITH(parse_axis("topk=16,,32"), Contains("empty value"));
  CHECK_THROWS_WITH(parse_axis("topk=16,16"), Contains("twice"));
  CHECK_THROWS_WITH(parse_axis("seed=range(4,0)"), Contains("is no range"));
  CHECK_THROWS_WITH(parse_axis("seed=range(0,1000000)"), Contains("is no range"));
}

TEST_CASE("a value sets keys of the configuration", "[sweep]") {
  CHECK(settings_of("topk", "16") == Settings{{"model.index_topk", "16"}});
  CHECK(settings_of("teacher", "visible").at("semantics.student_keys") == "visible");
  CHECK(settings_of("optimizer", "adam").empty());
  CHECK(settings_of("model.hidden_size", "64") == Settings{{"model.hidden_size", "64"}});
}

TEST_CASE("a plan is every combination, and its ids are those of content", "[sweep]") {
  const Bench bench;
  const Plan plan = make_plan(bench.sweep({"topk=16,32", "seed=range(0,3)"}), "trainer.sh");
  REQUIRE(plan.points.size() == 6);
  CHECK(name_of(plan.points[1]) == "seed=1 topk=16");
  CHECK(plan.points[5].keys == Settings{{"model.index_topk", "32"}, {"run.seed", "2"}});
  std::set<std::string> ids;
  for (const Point& point : plan.points) ids.insert(point.id);
  CHECK(ids.size() == 6);

  // Another order of the axes, and other points beside it: the same run, the same id.
  const Plan other = make_plan(bench.sweep({"seed=2,5", "topk=32,64"}), "trainer.sh");
  CHECK(other.points[0].id == plan.points[5].id);
  // Another content of the configuration: another run.
  write_text(bench.config, "[run]\nsteps = 4\n");
  CHECK(make_plan(bench.sweep({"seed=2", "topk=32"}), "trainer.sh").points[0].id !=
        plan.points[5].id);
}

TEST_CASE("sweeps that contradict themselves are refused", "[sweep]") {
  const Bench bench;
  const auto planned = [&](const Strings& axes) { return make_plan(bench.sweep(axes), "t"); };
  CHECK_THROWS_WITH(planned({}), Contains("the sweep has no axis"));
  CHECK_THROWS_WITH(planned({"seed=1", "seed=2"}), Contains("given twice"));
  CHECK_THROWS_WITH(planned({"seed=1", "run.seed=2"}), Contains("both set run.seed"));
  CHECK_THROWS_WITH(planned({"seed=range(0,1000)", "topk=range(1,1001)"}),
                    Contains("more than 100000 points"));
  Sweep sweep = bench.sweep({"seed=1", "topk=16"});
  sweep.claims.push_back({"c", "r", "", "topk", "16", "64", {}, false, false, {}});
  CHECK_THROWS_WITH(make_plan(sweep, "t"), Contains("topk=64, which is no point of the sweep"));
  sweep.claims[0] = {"c", "r", "", "context", "16", "64", {}, false, false, {}};
  CHECK_THROWS_WITH(make_plan(sweep, "t"), Contains("which the sweep does not have"));
}

TEST_CASE("a frozen plan reads back, and no other takes its place", "[sweep]") {
  const Bench bench;
  const Plan plan = make_plan(bench.sweep({"topk=16,32", "seed=0,1"}), "trainer.sh");
  freeze(plan, bench.out);
  const std::string text = read_text(bench.out / "plan.json");
  CHECK(to_json(read_plan(bench.out)) == to_json(plan));
  freeze(plan, bench.out);
  CHECK(read_text(bench.out / "plan.json") == text);
  const Plan other = make_plan(bench.sweep({"topk=16,32", "seed=0,2"}), "trainer.sh");
  CHECK_THROWS_WITH(freeze(other, bench.out), Contains("differs in \"axes\""));
  CHECK(read_text(bench.out / "plan.json") == text);
  CHECK_THROWS_WITH(read_plan(bench.scratch.path()), Contains("has no plan.json"));
}

TEST_CASE("parts of a plan are disjoint and complete", "[sweep]") {
  const Bench bench;
  const Plan plan = make_plan(bench.sweep({"topk=16,32,64", "seed=range(0,3)"}), "t");
  std::multiset<std::string> ids;
  for (const char* part : {"1/4", "2/4", "3/4", "4/4"})
    for (const Point& point : chosen(plan, part)) ids.insert(point.id);
  CHECK(ids.size() == 9);
  for (const Point& point : plan.points) CHECK(ids.count(point.id) == 1);
  CHECK(chosen(plan, plan.points[3].id.substr(0, 10)).at(0).id == plan.points[3].id);
  for (const char* wrong : {"0/4", "5/4", "1/", "/4", "a/4"})
    CHECK_THROWS_WITH(chosen(plan, wrong), Contains("expected I/N"));
  CHECK_THROWS_WITH(chosen(plan, "zzzz"), Contains("0 ids of the plan"));
}

TEST_CASE("the registered sweeps can be read and planned", "[sweep]") {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(source_dir() + "/experiments/sweeps")) {
    if (entry.path().filename().string().starts_with("base")) continue;
    INFO(entry.path());
    const Sweep sweep = read_sweep(entry.path());
    const Plan plan = make_plan(sweep, "dsa-train");
    CHECK(plan.points.size() % 8 == 0);  // eight seeds
    CHECK(to_json(parse_sweep(to_json(sweep), "again")) == to_json(sweep));
    ++files;
  }
  CHECK(files >= 4);
}

TEST_CASE("files of sweeps that are none are refused in a sentence", "[sweep]") {
  const Scratch scratch;
  const auto read = [&](const std::string& text) {
    write_text(scratch / "s.toml", text);
    return read_sweep(scratch / "s.toml");
  };
  CHECK_THROWS_WITH(read("title = \n"), Contains("s.toml: line 1 is no TOML"));
  CHECK_THROWS_WITH(read("titel = \"x\"\n"), Contains("a key that no sweep knows: \"titel\""));
  CHECK_THROWS_WITH(read("title = \"x\"\n"), Contains("s.toml registers nothing"));
  CHECK_THROWS_WITH(read("title = 2026-01-01\n"), Contains("line 1 has a date"));
  CHECK_THROWS_WITH(read("[axes]\ntopk = [16, [1]]\n"), Contains("expected a number, a word"));
  CHECK_THROWS_WITH(
      read("[[claims]]\nsays = \"a\"\nmetric = \"m\"\naxis = \"topk\"\ngate = \">= 1\"\n"),
      Contains("compares nothing"));
}
