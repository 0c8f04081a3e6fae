// verify/measure/compare.hpp — a flat array against the reference, element by element.
// tests/verify/compare_test.cpp corrupts good results in every way we could think of.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "verify/measure/check.hpp"

namespace dsa::verify {

/// `allowed` is a bound per element, derived by the caller; see verify/measure/bounds.hpp. Error:
/// the three are not of one length.
Check compare(std::span<const double> got, std::span<const double> want,
              std::span<const double> allowed);

/// "(3, 0, 17)": the subscripts of a linear index.
std::string place_in(const std::vector<Index>& shape, Index at);

/// One line: where it is worst, and what was got and wanted there.
std::string describe(const Check&, const std::vector<Index>& shape);

}  // namespace dsa::verify
