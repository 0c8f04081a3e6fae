// verify/gradients/report.hpp — a verdict on gradients, as a table and as JSON.
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

}  // namespace dsa::verify
