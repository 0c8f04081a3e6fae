// tests/experiments/sweep_helpers.hpp — a sweep with a stand-in for dsa-train: a shell script whose
// results follow from what it is told.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/file.hpp"
#include "experiments/sweep/runner.hpp"
#include "tests/scratch.hpp"

namespace dsa::test {

using namespace dsa::sweep;

/// Recall is topk / 1000 + seed / 100; cost is context squared. Where the file `broken` lies beside
/// the configuration, topk=32 fails with a sentence.
inline constexpr const char* stand_in = R"(#!/bin/sh
config=$1
for each in "$@"; do
  case $each in
    run.out=*) out=${each#run.out=} ;;
    model.index_topk=*) topk=${each#*=} ;;
    data.seq=*) context=${each#*=} ;;
    run.seed=*) seed=${each#*=} ;;
  esac
done
if [ "$topk" = 32 ] && [ -e "$config.broken" ]; then
  echo "dsa-train: the stand-in is broken" >&2
  exit 2
fi
mkdir -p "$out"
awk -v k="$topk" -v s="$context" -v seed="$seed" 'BEGIN {
  printf "{\"recall\": {\"indexer\": %.6f, \"random\": %.6f}, \"cost\": %d, \"stage\": \"sparse\"}\n",
         k / 1000 + seed / 100, k / 2000 + seed / 100, s * s }' > "$out/summary.json"
)";

/// A folder with the stand-in, its configuration, and room for results.
struct Bench {
  Scratch scratch;
  std::string trainer = (scratch / "trainer.sh").string();
  std::string config = (scratch / "config.toml").string();
  std::filesystem::path out = scratch / "out";

  Bench() {
    write_text(trainer, stand_in);
    write_text(config, "[run]\nsteps = 3\n");
    std::filesystem::permissions(trainer, std::filesystem::perms::owner_all);
  }

  Sweep sweep(const std::vector<std::string>& axes) const {
    Sweep made;
    made.config = config;
    for (const std::string& axis : axes) made.axes.push_back(parse_axis(axis));
    return made;
  }

  Tally run(const Plan& plan, const std::string& only = "") const {
    freeze(plan, out);
    repair(out);
    return run_points(plan, {out, {trainer}, only, false},
                      [](const Point&, const Row&, int, int) {});
  }

  std::string results() const { return read_text(out / "results.jsonl"); }
};

/// The rows as text, without what differs from run to run.
inline std::vector<std::string> without_receipts(const std::filesystem::path& directory) {
  std::vector<std::string> lines;
  for (Row row : read_rows(directory).rows) {
    row.receipt = nullptr;
    lines.push_back(to_json(row).dump());
  }
  return lines;
}

/// A finished run made by hand.
inline Row run_of(const Settings& axes, const std::map<std::string, double>& metrics) {
  Row row;
  row.done = true;
  row.axes = axes;
  row.metrics = metrics;
  for (const auto& [name, value] : axes) row.id += name + value;
  return row;
}

}  // namespace dsa::test
