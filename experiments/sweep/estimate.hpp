// experiments/sweep/estimate.hpp — what the points that are left will take, from those that ran.
#pragma once

#include <optional>
#include <vector>

#include "experiments/sweep/results.hpp"

namespace dsa::sweep {

struct Cost {
  double seconds = 0, mib = 0;
};

/// Of one point: the mean time and the largest peak of the finished runs that differ from it in the
/// pairing axis alone; where there is none, of all finished runs; where nothing ran, nothing.
std::optional<Cost> expected(const Plan&, const Point&, const std::vector<Row>&);

}  // namespace dsa::sweep
