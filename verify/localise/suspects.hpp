// verify/localise/suspects.hpp — the fewest ops that must be wrong for a candidate to depart as it
// does.
#pragma once

#include <string>
#include <vector>

#include "verify/judge/against_definition.hpp"

namespace dsa::verify {

/// Trace names of ops, in order of execution. With a trace: the first tensor that departs, with the
/// ops between it and the traced tensors that it is made of, which agree. Without: the ops that can
/// reach the rows that depart but none that agrees. A query of one key does not feel attention's
/// scores, and one that sees no more than top-k keys does not feel the indexer.
std::vector<std::string> suspects(const ModelPair&, const Recording& candidate,
                                  const Judgement& plain);

}  // namespace dsa::verify
