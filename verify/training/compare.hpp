// verify/training/compare.hpp — a recorded run held against a replay of it.
#pragma once

#include "verify/training/judge.hpp"
#include "verify/training/rehearsal.hpp"

namespace dsa::verify {

/// Holds a run against steps that are replayed one by one. Errors are in units of their limits,
/// `wider` times as large where a replay other than the rehearsal's is meant.
class Comparison {
 public:
  Comparison(const Trajectory& found, const Rehearsal&, const TrainingLimits&);

  /// The largest error of one step's quantities, and that of the final parameters.
  double of_step(Index step, const StepRecord& expected, double wider = 1) const;
  double of_finals(const Replay&, double wider = 1) const;

  /// How far two replays lie apart in one step.
  double between(Index step, const StepRecord& a, const StepRecord& b) const;

  const Rehearsal& rehearsal() const { return rehearsal_; }

  std::vector<QuantityResult> quantities(const std::vector<StepRecord>& expected) const;

  /// `promised`: what is missed where it is not found.
  std::vector<FinalResult> finals(const Replay&, const ByParameter& promised) const;

 private:
  FinalResult of_final(std::size_t i, const Values& expected, const StoredValues& found) const;
  FinalResult of_frozen(const Values& expected, const StoredValues& found) const;

  const Trajectory& found_;
  const Rehearsal& rehearsal_;
  const TrainingLimits& limits_;
};

}  // namespace dsa::verify
