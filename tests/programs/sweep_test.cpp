// dsa-sweep as a user runs it, with a stand-in for dsa-train.
#include <sstream>
#include <string>

#include "core/file.hpp"
#include "tests/experiments/sweep_helpers.hpp"
#include "tests/paths.hpp"
#include "tests/programs/programs.hpp"
#include "tests/skip.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;

namespace {

/// The arguments of a sweep of four points.
std::string words(const Bench& bench, const std::string& more = "") {
  return "dsa-sweep topk=16,32 seed=0,1 --config " + bench.config + " --trainer " + bench.trainer +
         " --out " + bench.out.string() + " " + more;
}

std::size_t lines(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

TEST_CASE("dsa-sweep plans, runs, skips and reports", "[programs][sweep]") {
  const Bench bench;
  const Outcome planned = run(words(bench, "--dry-run"));
  CHECK(planned.status == 0);
  CHECK_THAT(planned.out, Contains("seed=1 topk=16  to run"));
  CHECK_THAT(planned.out, Contains("4 points, 4 to run"));
  CHECK_FALSE(std::filesystem::exists(bench.out));

  const Outcome first = run(words(bench));
  CHECK(first.status == 0);
  CHECK_THAT(first.out, Contains("4 done, 0 done before, 0 failed"));
  CHECK_THAT(run(words(bench)).out, Contains("0 done, 4 done before, 0 failed"));

  const std::string page = (bench.scratch / "page.html").string();
  const Outcome reported = run("dsa-sweep report " + bench.out.string() + " -o " + page);
  CHECK(reported.status == 0);
  CHECK_THAT(read_text(page), Contains("4 of 4 points are done"));
}

TEST_CASE("a point of a committed sweep runs again within the range of its seeds",
          "[programs][sweep][slow]") {
  // Seeds vary more than processors do: beyond the range of eight seeds, widened by itself to each
  // side, something else has changed.
  std::istringstream committed(
      read_text(source_dir() + "/experiments/results/sweeps/diffuse/results.jsonl"));
  std::vector<Json> rows;
  std::string id;
  for (std::string line; std::getline(committed, line);)
    if (const Json one = Json::parse(line); one.at("axes").at("warmup_steps") == 1) {
      rows.push_back(one.at("metrics"));
      if (one.at("axes").at("seed") == 0) id = one.at("id");
    }
  REQUIRE(rows.size() == 8);
  const Scratch scratch;
  const std::string out = (scratch / "again").string();
  const Outcome again = run("dsa-sweep run " + source_dir() +
                            "/experiments/sweeps/diffuse.toml --only " + id + " --out " + out);
  INFO(again.err);
  REQUIRE(again.status == 0);
  const Json row = read_json(out + "/results.jsonl").at("metrics");
  for (const std::string name :
       {"kl", "recall.indexer", "recall.oracle", "dense.lm", "sparse.lm"}) {
    const std::string key = "sources.synthetic:lookup." + name;
    double low = rows[0].at(key), high = low;
    for (const Json& one : rows) {
      low = std::min(low, one.at(key).get<double>());
      high = std::max(high, one.at(key).get<double>());
    }
    INFO(key);
    CHECK(low < high);
    CHECK(row.at(key).get<double>() >= low - (high - low));
    CHECK(row.at(key).get<double>() <= high + (high - low));
  }
}

TEST_CASE("dsa-sweep ends with status 1 where a point failed", "[programs][sweep]") {
  const Bench bench;
  write_text(bench.config + ".broken", "");
  const Outcome result = run(words(bench));
  CHECK(result.status == 1);
  CHECK_THAT(result.out, Contains("failed: dsa-train: the stand-in is broken"));
  CHECK_THAT(run(words(bench, "--dry-run")).out,
             Contains("failed before: dsa-train: the stand-in is broken"));
}

TEST_CASE("Ctrl-C loses the point at work alone", "[programs][sweep]") {
  const Bench bench;
  // The stand-in's second run interrupts dsa-sweep, as a terminal does, and waits for its own end.
  write_text(bench.trainer + ".whole", read_text(bench.trainer));
  write_text(bench.trainer,
             "#!/bin/sh\nif [ -e \"$1.second\" ] && ! [ -e \"$1.over\" ]; then\n"
             "  : > \"$1.over\"; kill -INT $PPID; sleep 100; fi\n: > \"$1.second\"\n"
             "exec sh \"$0.whole\" \"$@\"\n");
  std::filesystem::permissions(bench.trainer, std::filesystem::perms::owner_all);
  const Outcome interrupted = run(words(bench));
  CHECK(interrupted.status == 130);
  CHECK(lines(bench.results()) == 1);
  const Outcome resumed = run(words(bench));
  CHECK(resumed.status == 0);
  CHECK_THAT(resumed.out, Contains("3 done, 1 done before, 0 failed"));
  CHECK(lines(bench.results()) == 4);
}

TEST_CASE("dsa-sweep refuses in one sentence", "[programs][sweep]") {
  const Bench bench;
  const std::string rest = " --config " + bench.config + " --out " + bench.out.string();
  CHECK_THAT(complaint("dsa-sweep topkk=1" + rest), Contains("there is no axis \"topkk\""));
  CHECK_THAT(complaint("dsa-sweep topk=0" + rest), Contains("cannot take \"0\""));
  CHECK_THAT(complaint("dsa-sweep topk=1 --out " + bench.out.string()),
             Contains("no configuration is named"));
  CHECK_THAT(complaint("dsa-sweep topk=1 --trainer /nowhere" + rest),
             Contains("cannot start /nowhere"));
  CHECK(run(words(bench)).status == 0);
  CHECK_THAT(complaint(words(bench, "context=64")), Contains("holds another sweep"));
  CHECK_THAT(complaint("dsa-sweep report " + bench.scratch.path().string() + " -o x.html"),
             Contains("has no plan.json"));
}

TEST_CASE("the Snakefile plans a job a point", "[programs][sweep][slow]") {
  if (std::system("snakemake --version >/dev/null 2>&1") != 0) {
    skip("snakemake is not installed: the Snakefile is not tried");
    return;
  }
  const Bench bench;
  const std::string root = source_dir() + "/experiments/snakemake/";
  for (const char* profile : {"local", "slurm"}) {
    const std::string log = (bench.scratch / "log").string();
    const std::string command = "cd " + bench.scratch.path().string() +
                                " && snakemake --dry-run -s " + root + "Snakefile --profile " +
                                root + "profiles/" + profile + " --config program=" + binary_dir() +
                                "/dsa-sweep out=" + bench.out.string() +
                                " 'sweep=topk=16,32 seed=0,1 --config " + bench.config +
                                "' 'arguments=--trainer " + bench.trainer + "' >" + log + " 2>&1";
    INFO(command);
    CHECK(std::system(command.c_str()) == 0);
    CHECK_THAT(read_text(log), Contains("rule point:"));
  }
}

TEST_CASE("the Snakefile of verification plans a job a span", "[programs][slow]") {
  if (std::system("snakemake --version >/dev/null 2>&1") != 0) {
    skip("snakemake is not installed: the Snakefile is not tried");
    return;
  }
  const Scratch scratch;
  const std::string root = source_dir() + "/experiments/snakemake/",
                    sample = source_dir() + "/data/samples/v32/", log = (scratch / "log").string();
  const std::string command =
      "cd " + scratch.path().string() + " && snakemake --dry-run -s " + root +
      "verify.smk --profile " + root + "profiles/slurm --config " + "program=" + binary_dir() +
      "/dsa-verify checkpoint=" + sample + "checkpoint golden=" + sample +
      "trace.fp64.safetensors out=" + (scratch / "out").string() + " span=2 >" + log + " 2>&1";
  INFO(command);
  CHECK(std::system(command.c_str()) == 0);
  CHECK_THAT(read_text(log),
             Contains("0-2.json") && Contains("2-3.json") && Contains("rule merge:"));
}
