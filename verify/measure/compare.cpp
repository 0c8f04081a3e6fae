#include "verify/measure/compare.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

void note(Comparison& c, Index i, double ratio, double got, double want, double allowed) {
  c.worst = ratio;
  c.worst_at = i;
  c.got = got;
  c.want = want;
  c.allowed = allowed;
}

}  // namespace

Comparison compare(std::span<const double> got, std::span<const double> want,
                   std::span<const double> allowed) {
  require(got.size() == want.size() && allowed.size() == want.size(),
          fmt::format("{} numbers and {} allowances to be held against {}", got.size(),
                      allowed.size(), want.size()));
  Comparison c;
  c.n = static_cast<Index>(want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double g = got[i], w = want[i], a = allowed[i];
    if (std::isfinite(g) && std::isfinite(w)) {
      const double error = std::abs(g - w);
      const double ratio = error == 0 ? 0 : error / a;
      const bool is_bound = a >= 0 && std::isfinite(a);
      if (!(ratio <= 1) || !is_bound) ++c.over;
      if (!(ratio <= c.worst)) note(c, static_cast<Index>(i), ratio, g, w, a);
    } else if (!(g == w)) {  // equal infinities are equal; NaN equals nothing
      if (++c.wrong_kind == 1)
        note(c, static_cast<Index>(i), std::numeric_limits<double>::infinity(), g, w, a);
    }
  }
  return c;
}

std::string place_in(const std::vector<Index>& shape, Index at) {
  std::string text;
  for (auto extent = shape.rbegin(); extent != shape.rend(); ++extent) {
    text = std::to_string(at % *extent) + (text.empty() ? "" : ", ") + text;
    at /= *extent;
  }
  return "(" + text + ")";
}

std::string describe(const Comparison& c, const std::vector<Index>& shape) {
  if (c.n == 0) return "nothing was compared";
  if (!c.why.empty()) return c.why;
  if (c.worst_at < 0) return fmt::format("{} elements, equal", count(c.n));
  return fmt::format(
      "{} at {}: got {:.9g}, want {:.9g}, allowed {:.3g}; {} over and {} of the "
      "wrong kind among {}",
      number(c.worst), place_in(shape, c.worst_at), c.got, c.want, c.allowed, count(c.over),
      count(c.wrong_kind), count(c.n));
}

}  // namespace dsa::verify
