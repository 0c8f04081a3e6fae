#include "verify/measure/check.hpp"

#include <cmath>
#include <limits>

namespace dsa::verify {

double in_units_of(double allowed, double got, double want) {
  if (std::isinf(want) && got == want) return 0;
  const double error = std::abs(got - want);
  const bool is_bounded = allowed >= 0 && std::isfinite(allowed) && std::isfinite(error);
  if (!is_bounded) return std::numeric_limits<double>::infinity();
  return error == 0 ? 0 : error / allowed;
}

bool is_masked(double x) { return x <= -1e38; }

void Check::note(const Element& e, const Place& place) {
  worst = e.ratio;
  got = e.got, want = e.want, allowed = e.allowed;
  at = place;
}

void Check::add(double g, double w, double a, const Place& place) {
  ++n;
  const double ratio = in_units_of(a, g, w);
  const bool is_wrong_kind = !(std::isfinite(g) && std::isfinite(w)) && g != w;
  const bool is_first = is_wrong_kind && wrong_kind++ == 0;
  if (!is_wrong_kind && !(ratio <= 1)) ++over;
  if (is_first || !at.is_known() || ratio > worst) note({ratio, g, w, a}, place);
}

void Check::add_value(double value, double limit, const Place& place) {
  ++n;
  const double ratio = in_units_of(limit, value, 0);
  if (!(ratio <= 1)) ++over;
  if (!at.is_known() || ratio > worst) note({ratio, value, 0, limit}, place);
}

}  // namespace dsa::verify
