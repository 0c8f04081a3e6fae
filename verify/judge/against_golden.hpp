// verify/judge/against_golden.hpp — a candidate by the golden as well as by the definition.
#pragma once

#include "verify/judge/against_definition.hpp"

namespace dsa::verify {

/// A candidate and a golden, each with what holding it against the definition found.
struct Side {
  const Recording& recording;
  const SideResult& side;
};

/// The candidate's logits by both: metrics of KL(golden || candidate), and rows that must lie
/// within their limits of the definition and of the golden. Both sides have logits.
LogitsResult by_golden(const Side& candidate, const Side& golden);

}  // namespace dsa::verify
