#include "reference/ops/norms.hpp"

#include <cmath>

#include "reference/dual.hpp"

namespace dsa::reference {

template <class Real>
void rmsnorm(View<Real, 2> y, View<const Real, 2> x, View<const Real, 1> g, double eps) {
  using std::sqrt;
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("y", y, {T, C});
  expect_shape("g", g, {C});
  for (Index t = 0; t < T; ++t) {
    Real sum = 0;
    for (Index c = 0; c < C; ++c) sum += x(t, c) * x(t, c);
    const Real rms = sqrt(sum / static_cast<Real>(C) + static_cast<Real>(eps));
    for (Index c = 0; c < C; ++c) y(t, c) = g(c) * (x(t, c) / rms);
  }
}

template <class Real>
void layernorm(View<Real, 2> y, View<const Real, 2> x, View<const Real, 1> g, View<const Real, 1> b,
               double eps) {
  using std::sqrt;
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("y", y, {T, C});
  expect_shape("g", g, {C});
  expect_shape("b", b, {C});
  for (Index t = 0; t < T; ++t) {
    Real mean = 0, variance = 0;
    for (Index c = 0; c < C; ++c) mean += x(t, c) / static_cast<Real>(C);
    for (Index c = 0; c < C; ++c)
      variance += (x(t, c) - mean) * (x(t, c) - mean) / static_cast<Real>(C);
    const Real deviation = sqrt(variance + static_cast<Real>(eps));
    for (Index c = 0; c < C; ++c) y(t, c) = g(c) * ((x(t, c) - mean) / deviation) + b(c);
  }
}

template <class Real>
void rmsnorm_backward(View<Real, 2> d_x, View<Real, 1> d_g, View<const Real, 2> x,
                      View<const Real, 1> g, View<const Real, 2> d_y, double eps) {
  using std::sqrt;
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("d_x", d_x, {T, C});
  expect_shape("d_g", d_g, {C});
  expect_shape("g", g, {C});
  expect_shape("d_y", d_y, {T, C});
  for (Index t = 0; t < T; ++t) {
    Real squares = 0;
    for (Index c = 0; c < C; ++c) squares += x(t, c) * x(t, c);
    const Real rms = sqrt(squares / static_cast<Real>(C) + static_cast<Real>(eps));
    Real mean = 0;  // of d_n n
    for (Index c = 0; c < C; ++c) mean += g(c) * d_y(t, c) * (x(t, c) / rms);
    mean /= static_cast<Real>(C);
    for (Index c = 0; c < C; ++c) {
      const Real n = x(t, c) / rms;
      d_g(c) += d_y(t, c) * n;
      d_x(t, c) += (g(c) * d_y(t, c) - n * mean) / rms;
    }
  }
}

template <class Real>
void layernorm_backward(View<Real, 2> d_x, LayernormGradient<Real> gradient, View<const Real, 2> x,
                        View<const Real, 1> g, View<const Real, 2> d_y, double eps) {
  using std::sqrt;
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("d_x", d_x, {T, C});
  expect_shape("d_g", gradient.d_g, {C});
  expect_shape("d_b", gradient.d_b, {C});
  expect_shape("g", g, {C});
  expect_shape("d_y", d_y, {T, C});
  for (Index t = 0; t < T; ++t) {
    Real mean = 0, variance = 0;
    for (Index c = 0; c < C; ++c) mean += x(t, c) / static_cast<Real>(C);
    for (Index c = 0; c < C; ++c)
      variance += (x(t, c) - mean) * (x(t, c) - mean) / static_cast<Real>(C);
    const Real deviation = sqrt(variance + static_cast<Real>(eps));
    Real mean_d = 0, mean_dn = 0;  // of d_n, and of d_n n
    for (Index c = 0; c < C; ++c) {
      const Real n = (x(t, c) - mean) / deviation, d_n = g(c) * d_y(t, c);
      mean_d += d_n / static_cast<Real>(C);
      mean_dn += d_n * n / static_cast<Real>(C);
    }
    for (Index c = 0; c < C; ++c) {
      const Real n = (x(t, c) - mean) / deviation;
      gradient.d_b(c) += d_y(t, c);
      gradient.d_g(c) += d_y(t, c) * n;
      d_x(t, c) += (g(c) * d_y(t, c) - mean_d - n * mean_dn) / deviation;
    }
  }
}

#define DSA_INSTANTIATE_FORWARD(Real)                                                     \
  template void rmsnorm(View<Real, 2>, View<const Real, 2>, View<const Real, 1>, double); \
  template void layernorm(View<Real, 2>, View<const Real, 2>, View<const Real, 1>,        \
                          View<const Real, 1>, double);
#define DSA_INSTANTIATE(Real)                                                                   \
  DSA_INSTANTIATE_FORWARD(Real)                                                                 \
  template void rmsnorm_backward(View<Real, 2>, View<Real, 1>, View<const Real, 2>,             \
                                 View<const Real, 1>, View<const Real, 2>, double);             \
  template void layernorm_backward(View<Real, 2>, LayernormGradient<Real>, View<const Real, 2>, \
                                   View<const Real, 1>, View<const Real, 2>, double);
DSA_INSTANTIATE(double)
DSA_INSTANTIATE(long double)
DSA_INSTANTIATE_FORWARD(Dual)

}  // namespace dsa::reference
