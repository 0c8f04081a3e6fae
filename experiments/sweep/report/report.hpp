// experiments/sweep/report/report.hpp — sweeps as one page: for each what was asked, what was
// predicted, the figures with every run, the verdicts, and how to run it again.
#pragma once

#include <string>
#include <vector>

#include "experiments/sweep/analysis.hpp"

namespace dsa::sweep {

/// A sweep that ran, as its directory holds it.
struct Study {
  std::string directory;  // as the user named it
  Plan plan;
  Rows rows;
};

Study read_study(const std::string& directory);

/// The verdict of every claim of a sweep, in its order.
std::vector<Finding> findings_of(const Study&);

/// One file that loads nothing from elsewhere.
std::string page_of(const std::vector<Study>&);

/// One line a claim: verdict, mean, interval, p.
std::string text_of(const std::vector<Study>&);

}  // namespace dsa::sweep
