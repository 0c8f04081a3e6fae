// verify/report/report.hpp — a verdict as a table, JSON, JUnit XML and one HTML page.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

/// Aligned text for a terminal; ANSI colours if `colour`. Every line of a check shows value,
/// limit, where the limit comes from, headroom (limit / value; above the limit: value / limit) and
/// the worst place. What is no pass begins with the sentence that it also ends with.
std::string table(const Verdict&, bool colour);

/// Many verdicts as one, of the goldens under a directory.
struct Summary {
  std::filesystem::path directory;  // as the user named it
  std::vector<Verdict> verdicts;
  Outcome outcome = Outcome::inconclusive;  // of all: the process's
};

/// One line a verdict, paths relative to the directory, and a total: what `dsa-verify samples`
/// prints.
std::string table(const Summary&, bool colour);

/// The documented form (docs/report.md). NaN and infinities are written as strings.
Json to_json(const Verdict&);

Json receipt_json(const Receipt&);
Json tensor_json(const TensorResult&);  // an element of "tensors"

/// Several verdicts in one document: {"verdict", "why", "goldens": [...], "receipt"}.
Json to_json(const Summary&);

/// A test suite a verdict, a test case a check (tensor, logits); inconclusive is <skipped>.
std::string to_junit(const std::vector<Verdict>&);

/// One self-contained page, no network: verdict on top, KL by position, error by tensor,
/// selection agreement by layer and position, receipt.
std::string to_html(const Verdict&);
std::string to_html(const Summary&);

/// Exit code of a process: 0 pass, 1 fail, 3 inconclusive.
int exit_code(Outcome);

}  // namespace dsa::verify
