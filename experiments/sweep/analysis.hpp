// experiments/sweep/analysis.hpp — a claim, the runs that speak to it, and the verdict.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "experiments/sweep/results.hpp"

namespace dsa::sweep {

/// A number of a run: a metric, or a number of its receipt ("wall_s", "cpu_s", "peak_mib").
std::optional<double> value_of(const Row&, const std::string& metric);

struct Finding {
  Claim claim;
  std::vector<std::pair<std::string, double>> pairs;  // value of the pairing axis; its difference
  Estimate estimate;                                  // of a ratio: of it, not of its logarithm
  Verdict verdict = Verdict::cannot_tell;
  std::string note;  // what limits the finding; may be empty
};

/// Of the runs of one value of the pairing axis comes one number: they are not independent.
///   no axis:   the mean of metric - minus;
///   from, to:  the mean over runs that agree in every other axis of
///              (metric - minus) at `to` less that at `from`, or of the logarithms (ratio);
///   growth:    the slope of log metric on log axis, by least squares.
/// A value of the pairing axis that lacks a run which others have is left out, and the note says
/// so. Without a single pair the verdict is "cannot tell", and the note says why.
Finding examine(const Sweep&, const Claim&, const std::vector<Row>&);

}  // namespace dsa::sweep
