#include "reference/ops/norms.hpp"

#include <cmath>

namespace dsa::reference {

template <class Real>
void rmsnorm(View<Real, 2> y, View<const Real, 2> x, View<const Real, 1> g, double eps) {
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("y", y, {T, C});
  expect_shape("g", g, {C});
  for (Index t = 0; t < T; ++t) {
    Real sum = 0;
    for (Index c = 0; c < C; ++c) sum += x(t, c) * x(t, c);
    const Real rms = std::sqrt(sum / static_cast<Real>(C) + static_cast<Real>(eps));
    for (Index c = 0; c < C; ++c) y(t, c) = g(c) * (x(t, c) / rms);
  }
}

template <class Real>
void layernorm(View<Real, 2> y, View<const Real, 2> x, View<const Real, 1> g, View<const Real, 1> b,
               double eps) {
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("y", y, {T, C});
  expect_shape("g", g, {C});
  expect_shape("b", b, {C});
  for (Index t = 0; t < T; ++t) {
    Real mean = 0, variance = 0;
    for (Index c = 0; c < C; ++c) mean += x(t, c) / static_cast<Real>(C);
    for (Index c = 0; c < C; ++c)
      variance += (x(t, c) - mean) * (x(t, c) - mean) / static_cast<Real>(C);
    const Real deviation = std::sqrt(variance + static_cast<Real>(eps));
    for (Index c = 0; c < C; ++c) y(t, c) = g(c) * ((x(t, c) - mean) / deviation) + b(c);
  }
}

template void rmsnorm(View<double, 2>, View<const double, 2>, View<const double, 1>, double);
template void rmsnorm(View<long double, 2>, View<const long double, 2>, View<const long double, 1>,
                      double);
template void layernorm(View<double, 2>, View<const double, 2>, View<const double, 1>,
                        View<const double, 1>, double);
template void layernorm(View<long double, 2>, View<const long double, 2>,
                        View<const long double, 1>, View<const long double, 1>, double);

}  // namespace dsa::reference
