#include "reference/ops/accumulate.hpp"

#include "reference/dual.hpp"
#include "reference/ops/dot.hpp"

namespace dsa::reference {

template <class Real>
void accumulate(View<Real, 2> y, View<const Real, 2> x, std::span<const Index> rows,
                std::span<const Real> weights) {
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (Index c = 0; c < y.shape[1]; ++c)
      y(rows[i], c) += weights[i] * x(static_cast<Index>(i), c);
}

template <class Real>
void accumulate_backward(AccumulateGradient<Real> d, View<const Real, 2> x,
                         std::span<const Index> rows, std::span<const Real> weights,
                         View<const Real, 2> d_y) {
  const Index C = d_y.shape[1];
  expect_shape("x", x, {static_cast<Index>(rows.size()), C});
  expect_shape("d_x", d.d_x, x.shape);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Index r = static_cast<Index>(i);
    add_scaled(d.d_x[r].data, weights[i], d_y[rows[i]].data, C);
    d.d_weights[i] += dot(x[r].data, d_y[rows[i]].data, C);
  }
}

template <class Real>
void add(View<Real, 2> y, View<const Real, 2> x) {
  expect_shape("x", x, y.shape);
  for (Index i = 0; i < y.size(); ++i) y.data[i] += x.data[i];
}

template <class Real>
void add_backward(View<Real, 2> d_x, View<const Real, 2> d_y) {
  add(d_x, d_y);
}

#define DSA_INSTANTIATE_FORWARD(Real)                                                  \
  template void accumulate(View<Real, 2>, View<const Real, 2>, std::span<const Index>, \
                           std::span<const Real>);                                     \
  template void add(View<Real, 2>, View<const Real, 2>);
#define DSA_INSTANTIATE(Real)                                                      \
  DSA_INSTANTIATE_FORWARD(Real)                                                    \
  template void accumulate_backward(AccumulateGradient<Real>, View<const Real, 2>, \
                                    std::span<const Index>, std::span<const Real>, \
                                    View<const Real, 2>);                          \
  template void add_backward(View<Real, 2>, View<const Real, 2>);
DSA_INSTANTIATE(double)
DSA_INSTANTIATE(long double)
DSA_INSTANTIATE_FORWARD(Dual)

}  // namespace dsa::reference
