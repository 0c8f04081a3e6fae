// The notebooks are stored without outputs, and run on results of a sweep and of a training.
#include <string>

#include "core/json.hpp"
#include "tests/experiments/sweep_helpers.hpp"
#include "tests/paths.hpp"
#include "tests/programs/programs.hpp"
#include "tests/skip.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

/// Those that read results, and the one that runs the Python package.
const std::vector<std::string> of_results = {"sweeps", "indexer_training"};
const std::string of_package = "port_in_five_minutes";

bool can_run_notebooks() {
  if (std::system("python3 -c 'import nbconvert, ipykernel, matplotlib' 2>/dev/null") == 0)
    return true;
  skip("nbconvert, ipykernel or matplotlib is not installed: the notebooks are not run");
  return false;
}

/// Executes a notebook; it draws at least one figure.
void execute(const std::string& name, const std::string& environment, const Scratch& scratch) {
  const std::string log = (scratch / "log").string();
  const std::string command = environment +
                              " python3 -m nbconvert --to notebook --execute --output-dir " +
                              scratch.path().string() + " " + source_dir() + "/notebooks/" + name +
                              ".ipynb >" + log + " 2>&1";
  INFO(command);
  const int status = std::system(command.c_str());
  INFO(read_text(log));
  CHECK(status == 0);
  const Json done = read_json(scratch / (name + ".ipynb"));
  CHECK(done.dump().find("image/png") != std::string::npos);
}

/// A training of four steps in two stages, as dsa-train logs it.
void write_training(const std::filesystem::path& run) {
  std::filesystem::create_directories(run);
  std::string steps;
  for (const int step : {1, 2, 3, 4})
    steps += Json{{"step", step},
                  {"stage", step < 3 ? "warmup" : "sparse"},
                  {"loss.lm", 1.0 / step},
                  {"loss.kl", 0.5 / step},
                  {"recall.indexer", 0.2 * step},
                  {"recall.oracle", 0.9},
                  {"recall.recent", 0.3},
                  {"recall.random", 0.1}}
                 .dump() +
             "\n";
  write_text(run / "metrics.jsonl", steps);
  write_text(run / "summary.json",
             R"({"sources": {"synthetic:copy": {"dense": {"lm": 1, "accuracy": 0.9}}}})");
}

}  // namespace

TEST_CASE("notebooks are stored without outputs", "[programs][notebooks]") {
  std::vector<std::string> all = of_results;
  all.push_back(of_package);
  for (const std::string& name : all) {
    INFO(name);
    const Json notebook = read_json(source_dir() + "/notebooks/" + name + ".ipynb");
    CHECK(notebook.at("cells").size() >= 8);
    for (const Json& cell : notebook.at("cells")) {
      if (cell.at("cell_type") != "code") continue;
      CHECK(cell.at("outputs").empty());
      CHECK(cell.at("execution_count").is_null());
    }
  }
}

TEST_CASE("the notebooks run", "[programs][notebooks][slow]") {
  if (!can_run_notebooks()) return;
  const Bench bench;
  Sweep sweep = bench.sweep({"topk=16,32", "seed=0,1"});
  sweep.figures = {
      {"Recall", "topk", "", "share", {"recall.indexer", "recall.random"}, true, false, true}};
  bench.run(make_plan(sweep, "trainer.sh"));
  write_training(bench.scratch / "run");
  for (const std::string& name : of_results)
    execute(name,
            "DSA_SWEEPS=" + bench.scratch.path().string() +
                " DSA_RUN=" + (bench.scratch / "run").string(),
            bench.scratch);
}

TEST_CASE("the notebook finds the bugs that it plants into a port", "[programs][notebooks][slow]") {
  if (!can_run_notebooks()) return;
  if (std::system("cd / && python3 -c 'import dsa._core' 2>/dev/null") != 0)
    return skip("python3 has no package dsa with its compiled half: the notebook is not run");
  const Scratch scratch;
  execute(of_package, "PATH=" + binary_dir() + ":$PATH", scratch);
}
