// experiments/sweep/report/chart.hpp — one metric against one axis: every run a dot, the mean of
// each value with its 95 % interval, a colour a series.
#pragma once

#include <string>
#include <vector>

#include "experiments/sweep/analysis.hpp"

namespace dsa::sweep {

/// The values of a figure's series that have runs, in the order of the axis; one empty name where
/// the figure has no series.
std::vector<std::string> series_of(const Sweep&, const Figure&);

/// "" where no finished run has the metric. Readable at a phone's width.
std::string chart(const Sweep&, const Figure&, const std::string& metric, const std::vector<Row>&);

}  // namespace dsa::sweep
