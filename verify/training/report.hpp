// verify/training/report.hpp — a verdict on a run of training, as a table, JSON, JUnit XML and one
// HTML page.
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

/// One self-contained page: the verdict on top, error over what is allowed as a picture, and
/// tables.
std::string to_html(const TrainingVerdict&);

/// A test suite: a case for each number that was judged.
std::string to_junit(const TrainingVerdict&);

}  // namespace dsa::verify
