// experiments/sweep/results.hpp — DIR/results.jsonl, one row a finished point: what was measured,
// and the receipt of who measured it.
//
//   {"id", "status": "done" | "failed", "axes": {"topk": 16, ...}, "metrics": {"recall.indexer":
//    0.91, ...}, "error": "...", "receipt": {...}}
//
// Rows are only ever appended; of several rows of one point the last counts. Every append takes
// DIR/results.lock, so that many processes may work in one directory.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "experiments/sweep/plan.hpp"

namespace dsa::sweep {

struct Row {
  std::string id;
  bool done = false;
  Settings axes;
  std::map<std::string, double> metrics;
  std::string error;  // of a point that failed
  Json receipt = Json::object();
};

Json to_json(const Row&);

/// Every number of a document under its path, joined by dots: {"recall": {"indexer": 1}} is
/// "recall.indexer". Elements of lists have their index as a name.
std::map<std::string, double> numbers_of(const Json&);

struct Rows {
  std::vector<Row> rows;  // the last one of every point, in the order of the file
  std::string repaired;   // a sentence, where the last line was cut
};

/// Of a directory without results: none. A last line that was cut in the middle is left out and
/// said; any other line that is no row is an Error.
Rows read_rows(const std::filesystem::path& directory);

/// Takes a cut last line out of the file, and returns the sentence; "" where there is none.
std::string repair(const std::filesystem::path& directory);

/// Adds a row and waits until the disk has it. If the disk is full, the file stays as it was.
void append(const std::filesystem::path& directory, const Row&);

/// Rewrites results.jsonl in the order of the plan, one row a point, and beside it results.csv and
/// results.vl.json (Vega-Lite) from the rows.
void settle(const std::filesystem::path& directory, const Plan&);

}  // namespace dsa::sweep
