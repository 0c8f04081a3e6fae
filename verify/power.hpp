// verify/power.hpp — which known defects a golden could see.
//
// Every variant of every defect that can occur in the model is run as if it were a candidate
// without rounding errors, and held against the golden's own limits: what is not seen here, no
// candidate can be caught at by this golden.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "verify/judge.hpp"

namespace dsa::verify {

/// One row of the detection matrix. A ratio above 1 is caught.
struct PowerRow {
  int number = 0;
  std::string name, variant;
  double logits = 0;     // largest KL of a decided row / its limit
  double traces = 0;     // largest error of a traced tensor / what is allowed there
  Index selections = 0;  // traced decisions that the noise does not explain
  bool caught() const { return !(logits <= 1) || !(traces <= 1) || selections > 0; }
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

std::string table(const Power&);
Json to_json(const Power&);

}  // namespace dsa::verify
