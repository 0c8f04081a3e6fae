// verify/diagnose/gradient_power.hpp — which known defects of training a golden could see.
//
// Every variant that can occur is run in double as if it were a candidate, and held against the
// limits of the golden, or of candidates of another precision.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "verify/gradients/judge.hpp"

namespace dsa::verify {

/// One variant, by one loss. A ratio above 1 is caught.
struct GradientPowerRow {
  std::string loss;
  int number = 0;
  std::string name, variant;
  bool convention = false;
  double value = 0;      // difference of the loss / its limit; 0 without one in the golden
  double gradients = 0;  // largest error of a gradient / what is allowed; infinite: must be zero
  bool caught() const { return !(value <= 1) || !(gradients <= 1); }
};

struct GradientPower {
  std::string checkpoint, golden, precision, stage;
  std::vector<GradientPowerRow> matrix;  // loss by loss, in order of number
  Receipt receipt;
  Index caught() const;
};

/// Error: bad input, or a golden that is not what the definition says.
GradientPower gradient_power(const std::filesystem::path& checkpoint,
                             const std::filesystem::path& golden, const GradientOptions&);

std::string table(const GradientPower&, bool colour);
Json to_json(const GradientPower&);
std::string to_html(const GradientPower&);

}  // namespace dsa::verify
