// experiments/sweep/tables.hpp — rows for spreadsheets and for Vega-Lite.
#pragma once

#include <string>
#include <vector>

#include "experiments/sweep/results.hpp"

namespace dsa::sweep {

/// A line a row: id, status, the axes, every metric, wall and processor time, peak memory, error.
std::string csv_of(const Plan&, const std::vector<Row>&);

/// The figures of the sweep as one Vega-Lite document that reads results.csv beside it: every run a
/// point, the mean, and its 95 % interval.
Json vega_of(const Plan&);

}  // namespace dsa::sweep
