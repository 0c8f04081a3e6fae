#include "reference/dot.hpp"

namespace dsa::reference {

template <class Real>
Real dot(const Real* a, const Real* b, Index n) {
  constexpr Index lanes = 8;
  Real sum[lanes] = {};
  Index i = 0;
  for (; i + lanes <= n; i += lanes)
    for (Index lane = 0; lane < lanes; ++lane) sum[lane] += a[i + lane] * b[i + lane];
  for (Index lane = 0; i < n; ++i, ++lane) sum[lane] += a[i] * b[i];
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}
template double dot(const double*, const double*, Index);
template long double dot(const long double*, const long double*, Index);

}  // namespace dsa::reference
