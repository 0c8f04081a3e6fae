// experiments/sweep/plan.hpp — the points of a sweep, frozen in DIR/plan.json before the first one
// runs.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json_fwd.hpp"
#include "experiments/sweep/sweep_file.hpp"

namespace dsa::sweep {

/// One run: what it sets. The id is a hash of the configuration's content and of every key that is
/// set: the same run has the same id in every sweep.
struct Point {
  std::string id;
  Settings axes;  // axis -> value
  Settings keys;  // key of the configuration -> value
};

struct Plan {
  Sweep sweep;
  std::string program;        // that runs a point: "dsa-train"
  std::string config_sha256;  // of sweep.config's content
  std::vector<Point> points;  // the last axis runs fastest
};

/// Every combination of the axes. Errors: no axis, an axis given twice, two axes that set the same
/// key, a claim or figure about an axis or a value that the sweep does not have.
Plan make_plan(const Sweep&, const std::string& program);

Json to_json(const Plan&);
Plan read_plan(const std::filesystem::path& directory);

/// Writes DIR/plan.json, or finds there the very same plan. Another plan is an Error that says in
/// what they differ.
void freeze(const Plan&, const std::filesystem::path& directory);

/// "topk=16 context=512 seed=0"
std::string name_of(const Point&);

/// The points that `only` names: an id, a beginning of one that is unambiguous, or "i/n", the i-th
/// of n parts of the plan (from 1). Empty: all.
std::vector<Point> chosen(const Plan&, const std::string& only);

}  // namespace dsa::sweep
