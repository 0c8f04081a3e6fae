#include "verify/measure/fit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/check.hpp"

namespace dsa::verify {
namespace {

constexpr int scanned = 17;      // points of the scan
constexpr double few = 128;      // integers that are all tried
constexpr int sections = 26;     // 0.618^26: a valley of e^4 is known to 2e-5
constexpr double as_good = 1.1;  // of a rounder number: what remains is rounding noise

/// x with so many decimal digits.
double rounded(double x, int digits) { return std::stod(fmt::format("{:.{}e}", x, digits - 1)); }

double golden_section(const std::function<double(double)>& left, double a, double b) {
  const double ratio = (std::sqrt(5.0) - 1) / 2;
  double x = b - ratio * (b - a), y = a + ratio * (b - a);
  double at_x = left(std::exp(x)), at_y = left(std::exp(y));
  for (int i = 0; i < sections; ++i) {
    if (at_x < at_y) {
      b = y, y = x, at_y = at_x;
      x = b - ratio * (b - a), at_x = left(std::exp(x));
    } else {
      a = x, x = y, at_x = at_y;
      y = a + ratio * (b - a), at_y = left(std::exp(y));
    }
  }
  return std::exp((a + b) / 2);
}

/// The best integer of [a, b]: every one where they are few; else a scan, then its neighbourhood.
double best_integer(const std::function<double(double)>& left, double a, double b) {
  while (b - a > few) {
    double best = a, least = left(a);
    const double step = (b - a) / (scanned - 1);
    for (int i = 1; i < scanned; ++i) {
      const double x = std::round(a + step * i), value = left(x);
      if (value < least) least = value, best = x;
    }
    a = std::max(a, std::ceil(best - step)), b = std::min(b, std::floor(best + step));
  }
  double best = a, least = left(a);
  for (double x = a + 1; x <= b; ++x)
    if (const double value = left(x); value < least) least = value, best = x;
  return best;
}

/// Ever narrower parabolas through three points: a valley of exact numbers is a parabola down to
/// their rounding, where sections of equal precision see only its rim. By the logarithm, as above.
double bottom(const std::function<double(double)>& left, double x) {
  double least = left(std::exp(x));
  for (const double h : {1e-4, 1e-6, 1e-8, 1e-10}) {
    const double below = left(std::exp(x - h)), above = left(std::exp(x + h)),
                 curvature = below - 2 * least + above;
    if (!(curvature > 0)) break;
    const double better = x + h * (below - above) / (2 * curvature), value = left(std::exp(better));
    if (!(value < least)) continue;
    x = better, least = value;
  }
  return std::exp(x);
}

}  // namespace

double fit(const std::function<double(double)>& left, double from, double to, bool whole) {
  require(0 < from && from <= to, "a constant is fitted between positive numbers");
  if (whole) return best_integer(left, from, to);
  const double a = std::log(from), b = std::log(to), step = (b - a) / (scanned - 1);
  double best = a, least = left(from);
  for (int i = 1; i < scanned; ++i)
    if (const double value = left(std::exp(a + step * i)); value < least)
      least = value, best = a + step * i;
  const double found = golden_section(left, std::max(a, best - step), std::min(b, best + step));
  least = left(found);
  for (int digits = 1; digits <= 4; ++digits)
    if (const double rounder = rounded(found, digits); left(rounder) <= as_good * least)
      return rounder;
  return bottom(left, std::log(found));
}

}  // namespace dsa::verify
