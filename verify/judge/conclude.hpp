// verify/judge/conclude.hpp — from the parts of a judgement to an outcome: the only place that
// decides one.
#pragma once

#include "verify/verdict.hpp"

namespace dsa::verify {

/// Outcome, why and first departure of a judgement, from its parts.
void conclude(Judgement&);

/// Outcome and why of a verdict, from its concluded judgements.
void conclude(Verdict&);

}  // namespace dsa::verify
