// verify/gradients/report.hpp — a verdict on gradients, as a table, JSON, JUnit XML and one HTML
// page.
#pragma once

#include <string>

#include "core/json.hpp"
#include "verify/gradients/judge.hpp"

namespace dsa::verify {

/// Losses, the parameters that are worst over allowed, what must be zero, and the verdict.
std::string table(const GradientVerdict&, bool colour);

/// {"verdict", "why", "exit_code", "losses", "parameters", "first_departure", "must_be_zero",
/// "notes", "receipt"}: docs/report.md.
Json to_json(const GradientVerdict&);

/// One self-contained page: the verdict on top, error over what is allowed as a picture, and
/// tables.
std::string to_html(const GradientVerdict&);

/// A test suite: a case for each number that was judged.
std::string to_junit(const GradientVerdict&);

}  // namespace dsa::verify
