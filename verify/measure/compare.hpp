// verify/measure/compare.hpp — judge a result against the reference, in units of the error it is
// allowed.
//
// The judge fails closed. NaN, a wrong infinity, an empty tensor and a NaN in the reference are
// all failures; success is a positive statement (`n > 0 and nothing wrong`), never the absence
// of a complaint. tests/verify/compare_test.cpp corrupts good results in every way we could think
// of.
#pragma once

#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "verify/ must be compiled without -ffast-math: it has to be able to see NaN"
#endif

#include <span>
#include <string>
#include <vector>

#include "core/tensor.hpp"

namespace dsa::verify {

struct Comparison {
  Index n = 0;           // elements (rows, of a decision) compared
  Index wrong_kind = 0;  // NaN anywhere, or an infinity where the other side has none
  Index over = 0;        // finite, but further away than allowed
  double worst = 0;      // largest |got - want| / allowed
  Index worst_at = -1;   // its linear index
  double got = 0, want = 0, allowed = 0;  // there
  std::string why = {};                   // of a decision that is wrong: one clause

  bool ok() const { return n > 0 && wrong_kind == 0 && over == 0; }
};

/// `allowed` is a bound per element, derived by the caller; see verify/measure/bounds.hpp. Error:
/// the three are not of one length.
Comparison compare(std::span<const double> got, std::span<const double> want,
                   std::span<const double> allowed);

/// "(3, 0, 17)": the subscripts of a linear index.
std::string place_in(const std::vector<Index>& shape, Index at);

/// One line: where it is worst, and what was got and wanted there.
std::string describe(const Comparison&, const std::vector<Index>& shape);

}  // namespace dsa::verify
