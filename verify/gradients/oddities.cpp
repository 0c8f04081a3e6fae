#include "verify/gradients/oddities.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "verify/gradients/distance.hpp"

namespace dsa::verify {

std::string oddity(const Departure& d) {
  const auto is_odd = [](double x) { return !std::isfinite(x); };
  const auto first = std::find_if(d.found.begin(), d.found.end(), is_odd);
  if (first != d.found.end()) {
    const auto n = std::count_if(first, d.found.end(), is_odd);
    const Index at = first - d.found.begin();
    return fmt::format("has {} number{} not finite, the first at ({}, {})", n,
                       n == 1 ? " that is" : "s that are", at / d.columns, at % d.columns);
  }
  // Of any other matrix the shape gives it away when the file is read.
  if (d.rows != d.columns || d.rows < 2) return "";
  std::vector<double> turned(d.found.size());
  for (Index r = 0; r < d.rows; ++r)
    for (Index c = 0; c < d.columns; ++c)
      turned[static_cast<std::size_t>(c * d.rows + r)] =
          d.found[static_cast<std::size_t>(r * d.columns + c)];
  return distance(turned, d.wanted).whole <= d.limit ? "is the transpose of what it should be" : "";
}

}  // namespace dsa::verify
