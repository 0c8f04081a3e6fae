// verify/training/turned.hpp — which decisions, turned by rounding, explain a run beyond its
// limits.
//
// At the first departure, decisions that lie within the noise there or before are turned, one at a
// time, and the run is replayed from that step on. A turn that carries the run on is kept, until
// nothing is left beyond its limits, or no turn helps.
#pragma once

#include "verify/training/compare.hpp"

namespace dsa::verify {

struct Turned {
  std::vector<NearDecision> turns;
  std::vector<StepRecord> expected;  // of the replay with these turns
  std::optional<Replay> end;
  bool explains = false;     // nothing is left beyond its limits
  bool may_explain = false;  // turns move the run as far as the departure, yet none fits it
  Index first = -1;          // the first step with a decision within the noise
};

Turned turn_decisions(const Comparison&, const Rehearsal&, const std::vector<Sequence>& batches);

}  // namespace dsa::verify
