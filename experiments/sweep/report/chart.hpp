// experiments/sweep/report/chart.hpp — metrics against one axis: every run a dot, the mean of
// each value with its 95 % interval, a colour a series.
#pragma once

#include <string>
#include <vector>

#include "experiments/sweep/analysis.hpp"

namespace dsa::sweep {

/// What the colours of a figure stand for: the values of its series, its metrics where they are
/// drawn together, or one empty name.
std::vector<std::string> series_of(const Sweep&, const Figure&);

/// Of one metric, or of all of a figure that draws them together. "" where no finished run has any.
/// Readable at a phone's width.
std::string chart(const Sweep&, const Figure&, const std::vector<std::string>& metrics,
                  const std::vector<Row>&);

}  // namespace dsa::sweep
