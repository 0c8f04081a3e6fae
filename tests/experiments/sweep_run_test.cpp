// Runs with a stand-in for dsa-train: nothing that finished is lost, and nothing is run twice.
#include <sys/resource.h>

#include <csignal>

#include "core/check.hpp"
#include "experiments/sweep/lock.hpp"
#include "experiments/sweep/report/report.hpp"
#include "tests/catch.hpp"
#include "tests/experiments/sweep_helpers.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;

namespace {

/// Files cannot grow beyond `bytes` while it lives: a disk that is full.
class FullDisk {
 public:
  explicit FullDisk(std::uintmax_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit now = before_;
    now.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &now);
  }
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("half of the points deleted, the next run gives identical rows", "[sweep]") {
  const Bench bench;
  const Plan plan = make_plan(bench.sweep({"topk=16,32", "seed=range(0,3)"}), "trainer.sh");
  CHECK(bench.run(plan).done == 6);
  const auto rows = without_receipts(bench.out);
  REQUIRE(rows.size() == 6);
  CHECK_THAT(rows[5], Contains("\"recall.indexer\":0.052"));

  std::string text = bench.results(), half;
  for (int i = 0; !text.empty(); ++i) {
    const auto line = text.substr(0, text.find('\n') + 1);
    text.erase(0, line.size());
    if (i % 2 == 1) half += line;
  }
  write_text(bench.out / "results.jsonl", half);
  const Tally again = bench.run(plan);
  CHECK(again.done == 3);
  CHECK(again.skipped == 3);
  CHECK(without_receipts(bench.out) == rows);
}

TEST_CASE("a failed point is recorded with its sentence, and retried", "[sweep]") {
  const Bench bench;
  const Plan plan = make_plan(bench.sweep({"topk=16,32", "seed=0"}), "trainer.sh");
  write_text(bench.config + ".broken", "");
  const Tally first = bench.run(plan);
  CHECK(first.done == 1);
  CHECK(first.failed == 1);
  CHECK(read_rows(bench.out).rows.at(1).error == "dsa-train: the stand-in is broken");
  std::filesystem::remove(bench.config + ".broken");
  const Tally second = bench.run(plan);
  CHECK(second.done == 1);
  CHECK(second.skipped == 1);
  CHECK(count(bench.results(), "\n") == 2);
  CHECK(read_rows(bench.out).rows.at(1).done);
}

TEST_CASE("a run that a signal ended is recorded as that", "[sweep]") {
  const Bench bench;
  const Plan plan = make_plan(bench.sweep({"topk=16", "seed=0"}), "trainer.sh");
  write_text(bench.trainer, "#!/bin/sh\necho at work\nkill -SEGV $$\n");
  std::filesystem::permissions(bench.trainer, std::filesystem::perms::owner_all);
  CHECK(bench.run(plan).failed == 1);
  CHECK(read_rows(bench.out).rows.at(0).error == "ended by signal 11; its last line: at work");
}

TEST_CASE("a file cut in the middle of a row is repaired, and said", "[sweep]") {
  const Bench bench;
  const Plan plan = make_plan(bench.sweep({"topk=16,32", "seed=0"}), "trainer.sh");
  bench.run(plan);
  const auto rows = without_receipts(bench.out);
  const std::string whole = bench.results();
  write_text(bench.out / "results.jsonl", whole.substr(0, whole.size() - 40));
  CHECK_THAT(read_rows(bench.out).repaired, Contains("ended in the middle of a row"));
  CHECK(read_rows(bench.out).rows.size() == 1);
  CHECK_THAT(repair(bench.out), Contains("ended in the middle of a row"));
  CHECK(repair(bench.out).empty());
  CHECK(bench.run(plan).done == 1);
  CHECK(without_receipts(bench.out) == rows);

  write_text(bench.out / "results.jsonl", "{\"id\": \"a\"}\n" + whole);
  CHECK_THROWS_WITH(read_rows(bench.out), Contains("line 1 is no row of results"));
}

TEST_CASE("a full disk loses no finished point", "[sweep]") {
  const Bench bench;
  const Plan plan = make_plan(bench.sweep({"topk=16,32", "seed=0"}), "trainer.sh");
  bench.run(plan);
  const std::string before = bench.results();
  const Row row = read_rows(bench.out).rows.at(0);
  {
    const FullDisk full(before.size() + 10);
    CHECK_THROWS_WITH(append(bench.out, row), Contains("the rows before it are safe"));
  }
  CHECK(bench.results() == before);
  append(bench.out, row);
  CHECK(read_rows(bench.out).rows.size() == 2);
}

TEST_CASE("processes that share a directory keep out of each other's way", "[sweep]") {
  const Bench bench;
  const Plan plan = make_plan(bench.sweep({"topk=16,32", "seed=0"}), "trainer.sh");
  CHECK(bench.run(plan, "2/2").done == 1);
  CHECK(read_rows(bench.out).rows.at(0).axes.at("topk") == "32");
  const std::string first = plan.points[0].id;
  {
    const Lock taken(bench.out / "points" / (first + ".lock"), "taken");
    CHECK_THROWS_WITH(bench.run(plan), Contains("another dsa-sweep is at work on point " + first));
  }
  CHECK(bench.run(plan).done == 1);
}

TEST_CASE("a configuration that changed after the plan stops the sweep", "[sweep]") {
  const Bench bench;
  const Plan plan = make_plan(bench.sweep({"topk=16", "seed=0"}), "trainer.sh");
  freeze(plan, bench.out);
  write_text(bench.config, "[run]\nsteps = 4\n");
  CHECK_THROWS_WITH(bench.run(plan), Contains("was changed after the plan was frozen"));
}

TEST_CASE("every row has its receipt, and lies in the table", "[sweep]") {
  const Bench bench;
  const Plan plan = make_plan(bench.sweep({"topk=16", "seed=0,1"}), "trainer.sh");
  bench.run(plan);
  for (const Row& row : read_rows(bench.out).rows) {
    for (const char* key :
         {"commit", "version", "compiler", "flags", "machine", "cores", "threads", "config_sha256",
          "command", "seed", "started", "wall_s", "cpu_s", "peak_mib"}) {
      INFO(key);
      CHECK(row.receipt.contains(key));
    }
    CHECK(row.receipt.at("peak_mib") > 0);
  }
  const std::string csv = read_text(bench.out / "results.csv");
  CHECK(csv.starts_with("id,status,topk,seed,cost,recall.indexer,recall.random,wall_s,"));
  CHECK(count(csv, "\n") == 3);
}

TEST_CASE("the report has every run, the claims and their verdicts", "[sweep]") {
  const Bench bench;
  Sweep sweep = bench.sweep({"topk=16,32", "context=64,128", "seed=range(0,3)"});
  sweep.title = "Top-k <of> a stand-in";
  sweep.question = "Is more better?";
  sweep.prediction = "It is.";
  sweep.claims = {{"More is better.",
                   "recall.indexer",
                   "",
                   "topk",
                   "16",
                   "32",
                   {},
                   false,
                   false,
                   parse_gate(">= 0.015", "")},
                  {"The cost is linear.",
                   "cost",
                   "",
                   "context",
                   "",
                   "",
                   {},
                   false,
                   true,
                   parse_gate("<= 1.5", "")}};
  sweep.figures = {
      {"Recall", "topk", "context", "share", {"recall.indexer", "nowhere"}, true, false}};
  const Plan plan = make_plan(sweep, "trainer.sh");
  CHECK(bench.run(plan).done == 12);
  const std::vector<Study> studies = {read_study(bench.out.string())};
  const std::string page = page_of(studies);
  for (const Point& point : plan.points) CHECK(count(page, "(" + point.id + ")") == 1);
  CHECK(count(page, " run\"><title>") == 12);
  for (const char* part : {"Top-k &lt;of&gt; a stand-in", "Is more better?", "It is.",
                           "More is better.", ">holds<", ">does not hold<", "context=128",
                           "No finished run has nowhere", "2 claims: 1 hold, 1 do not hold"}) {
    INFO(part);
    CHECK(page.find(part) != std::string::npos);
  }
  CHECK(page.find("NaN") == std::string::npos);
  CHECK(page.find("http") == std::string::npos);
  CHECK_THAT(text_of(studies), Contains("holds          More is better. 0.016 [0.016, 0.016]"));
}
