// experiments/sweep/runner.hpp — runs the points of a frozen plan that have no result yet.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "experiments/sweep/results.hpp"

namespace dsa::sweep {

struct RunOptions {
  std::filesystem::path out;
  std::vector<std::string> program;  // the words that a point's configuration and keys follow
  std::string only;                  // as chosen() reads it
  bool interrupts = true;            // a child ended by Ctrl-C ends this process, too
};

struct Tally {
  int done = 0, failed = 0, skipped = 0;
};

/// Tells of a point that ended: "topk=16 seed=0", its row, how many of how many were looked at.
using Tell = std::function<void(const Point&, const Row&, int, int)>;

/// Runs PROGRAM CONFIG key=value ... run.out=DIR/points/ID for each point, and appends a row for
/// each that ended, well or not. Done points are skipped, failed ones run again. The results are in
/// order (settle()) when it returns.
Tally run_points(const Plan&, const RunOptions&, const Tell&);

/// The words of one point's command.
std::vector<std::string> command_of(const Plan&, const Point&, const RunOptions&);

}  // namespace dsa::sweep
