#include "verify/measure/compare.hpp"

#include <fmt/format.h>

#include "verify/report/text.hpp"

namespace dsa::verify {

Check compare(std::span<const double> got, std::span<const double> want,
              std::span<const double> allowed) {
  require(got.size() == want.size() && allowed.size() == want.size(),
          fmt::format("{} numbers and {} allowances to be held against {}", got.size(),
                      allowed.size(), want.size()));
  Check check;
  for (std::size_t i = 0; i < want.size(); ++i)
    check.add(got[i], want[i], allowed[i], {.channel = static_cast<Index>(i)});
  return check;
}

std::string place_in(const std::vector<Index>& shape, Index at) {
  std::string text;
  for (auto extent = shape.rbegin(); extent != shape.rend(); ++extent) {
    text = fmt::format("{}{}{}", at % *extent, text.empty() ? "" : ", ", text);
    at /= *extent;
  }
  return "(" + text + ")";
}

std::string describe(const Check& c, const std::vector<Index>& shape) {
  if (c.n == 0) return "nothing was compared";
  if (c.worst == 0) return fmt::format("{} elements, equal", count(c.n));
  return fmt::format(
      "{} at {}: got {:.9g}, want {:.9g}, allowed {:.3g}; {} over and {} of the "
      "wrong kind among {}",
      number(c.worst), place_in(shape, c.at.channel), c.got, c.want, c.allowed, count(c.over),
      count(c.wrong_kind), count(c.n));
}

}  // namespace dsa::verify
