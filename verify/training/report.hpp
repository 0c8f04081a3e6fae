// verify/training/report.hpp — a verdict on a run of training, as a table and as JSON.
#pragma once

#include <string>

#include "core/json.hpp"
#include "verify/training/judge.hpp"

namespace dsa::verify {

/// The recipe, every quantity of the steps, the final parameters that are worst over allowed, what
/// explains a departure, and the verdict.
std::string table(const TrainingVerdict&, bool colour);

/// docs/report.md.
Json to_json(const TrainingVerdict&);

}  // namespace dsa::verify
