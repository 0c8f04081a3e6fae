// verify/diagnose/power.hpp — which known defects a golden could see.
//
// Every variant of every defect that can occur in the model is run as if it were a candidate
// without rounding errors, and held against the golden's own limits, or those of candidates of
// another precision: what is not seen here, no candidate can be caught at by this golden.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "verify/judge/judge.hpp"

namespace dsa::verify {

/// One row of the detection matrix. A ratio above 1 is caught.
struct PowerRow {
  int number = 0;
  std::string name, variant;
  double logits = 0;     // largest KL of a decided row / its limit
  double traces = 0;     // largest error of a traced tensor / what is allowed there
  Index selections = 0;  // traced decisions that the noise does not explain
  bool by_logits() const { return !(logits <= 1); }
  bool caught() const;
  double most() const;  // the largest ratio; infinite where a decision shows it
};

struct Power {
  std::string checkpoint, golden, precision;
  std::vector<PowerRow> matrix;  // in order of number
  std::vector<std::string> add;  // what to add to the golden to see the rest
  Receipt receipt;
  Index caught() const;
};

/// Error: bad input, or a golden that is not what the definition says.
Power power(const std::filesystem::path& checkpoint, const std::filesystem::path& golden,
            const JudgeOptions&);

/// Every golden under a directory of samples (verify/judge/samples.hpp), its most precise column.
std::vector<Power> power_of_samples(const std::filesystem::path& directory, const JudgeOptions&);

/// What several goldens see together of one variant.
struct TogetherRow {
  PowerRow best;             // the largest of each
  Index goldens = 0;         // how many catch it
  std::vector<double> most;  // a golden each; -1: it cannot occur in that model
};

/// In order of number.
std::vector<TogetherRow> together(const std::vector<Power>&);

std::string table(const Power&, bool colour);
Json to_json(const Power&);

/// One golden, or several together.
std::string table(const std::vector<Power>&, bool colour);
Json to_json(const std::vector<Power>&);
std::string to_html(const std::vector<Power>&);

}  // namespace dsa::verify
