// verify/report/report.hpp — a verdict as a table, JSON, JUnit XML and one HTML page.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

/// Aligned text for a terminal; ANSI colours if `colour`. Every line of a check shows value,
/// limit, where the limit comes from, headroom (limit / value) and the worst place.
std::string table(const Verdict&, bool colour);

/// One line a verdict and a total: what `dsa-verify samples` ends with.
std::string summary_table(const std::vector<Verdict>&, bool colour);

/// The documented form (docs/report.md). NaN and infinities are written as strings.
Json to_json(const Verdict&);

Json receipt_json(const Receipt&);
Json tensor_json(const TensorResult&);    // an element of "tensors"
Json text_json(const std::string& text);  // a path need not be UTF-8, and JSON must be

/// Several verdicts in one document: {"verdict", "why", "goldens": [...], "receipt"}.
Json to_json(const std::vector<Verdict>&);

/// A test suite a verdict, a test case a check (tensor, logits); inconclusive is <skipped>.
std::string to_junit(const std::vector<Verdict>&);

/// One self-contained page, no network: verdict on top, KL by position, error by tensor,
/// selection agreement by layer and position, receipt.
std::string to_html(const std::vector<Verdict>&);

/// Exit code of a process: 0 pass, 1 fail, 3 inconclusive.
int exit_code(Outcome);

}  // namespace dsa::verify
