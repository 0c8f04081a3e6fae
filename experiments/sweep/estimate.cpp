#include "experiments/sweep/estimate.hpp"

#include <algorithm>

#include "experiments/sweep/analysis.hpp"

namespace dsa::sweep {
namespace {

std::optional<Cost> mean_of(const std::vector<const Row*>& rows) {
  if (rows.empty()) return std::nullopt;
  Cost cost;
  for (const Row* row : rows) {
    cost.seconds += value_of(*row, "wall_s").value_or(0) / static_cast<double>(rows.size());
    cost.mib = std::max(cost.mib, value_of(*row, "peak_mib").value_or(0));
  }
  return cost;
}

}  // namespace

std::optional<Cost> expected(const Plan& plan, const Point& point, const std::vector<Row>& rows) {
  Settings wanted = point.axes;
  wanted.erase(plan.sweep.pair);
  std::vector<const Row*> alike, all;
  for (const Row& row : rows) {
    if (!row.done) continue;
    all.push_back(&row);
    Settings axes = row.axes;
    axes.erase(plan.sweep.pair);
    if (axes == wanted) alike.push_back(&row);
  }
  const auto nearest = mean_of(alike);
  return nearest ? nearest : mean_of(all);
}

}  // namespace dsa::sweep
