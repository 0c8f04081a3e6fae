// verify/training/rehearsal.hpp — the recipe's run by the definition, and beside it the same with
// the roundings of a precision: what a right run may print.
//
// The rounded runs make the decisions of the definition's run (verify/training/decisions.hpp), so
// that their spread is that of rounding alone. In bf16, where every step turns many decisions, they
// are free, and their spread holds the jumps.
#pragma once

#include "verify/gradients/distance.hpp"
#include "verify/training/decisions.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

struct Rehearsal {
  std::vector<StepRecord> base;    // [step]  the definition's
  std::vector<StepRecord> spread;  // [step]  root mean square of what the draws differ by
  std::vector<std::vector<NearDecision>> near;  // [step]
  std::map<Index, Replay> before;               // the definition's run before steps with such
  std::optional<Replay> end;                    // the definition's run, all steps taken
  std::vector<std::pair<std::string, Values>> finals;  // of what is trained
  std::vector<std::vector<double>> whole, element;     // [final][draw]: distances
};

Rehearsal rehearse(const Model&, const Recipe&, const Trajectory& recorded, reference::Precision,
                   const Draws&);

/// How far each number of a right run may lie from the rehearsal's.
class TrainingLimits {
 public:
  TrainingLimits(const Rehearsal&, const Model&, const Recipe&, const Trajectory&,
                 reference::Precision, const Draws&);

  double of(const std::string& quantity, Index step) const;
  double whole_of_final(std::size_t i) const { return whole_.of(i, tail_); }
  double element_of_final(std::size_t i) const { return element_.of(i, tail_); }

 private:
  const Rehearsal& rehearsal_;
  double tail_, unit_, runs_;
  double own_;  // standard deviation of a loss by its own arithmetic, and of its sum, relative
  double summed_;
  double rate_;  // the schedule's full rate
  DistanceLimits whole_, element_;
};

}  // namespace dsa::verify
