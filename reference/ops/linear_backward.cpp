// Why blocks: W is decoded by runs of rows, as in the forward pass, so that no whole matrix is in
// memory besides its gradient. Each run is one product with the output's gradient; runs are added
// in their order.
#include <algorithm>
#include <vector>

#include "core/threads.hpp"
#include "reference/ops/linear.hpp"

namespace dsa::reference {
namespace {

/// Columns [begin, end) of x, as rows: (end - begin, T).
template <class Real>
Tensor<Real, 2> transposed(View<const Real, 2> x, Index begin, Index end) {
  const Index T = x.shape[0];
  Tensor<Real, 2> columns({end - begin, T});
  parallel_for(end - begin, 2 * T, [&](Index at) {
    const Index c = begin + at;
    for (Index t = 0; t < T; ++t) columns(c - begin, t) = x(t, c);
  });
  return columns;
}

/// y += x
template <class Real>
void add_all(View<Real, 2> y, const Tensor<Real, 2>& x) {
  parallel_for(x.size(), 1, [&](Index i) { y.data[i] += x.data()[i]; });
}

}  // namespace

template <class Real>
void linear_backward(View<Real, 2> d_x, LinearGradient<Real> gradient, View<const Real, 2> x,
                     const Linear& w, View<const Real, 2> d_y) {
  const Index T = x.shape[0], in = x.shape[1], out = w.weight.rows();
  expect_shape("d_y", d_y, {T, out});
  if (d_x.data) expect_shape("d_x", d_x, {T, in});
  if (gradient.d_weight.data) expect_shape("d_weight", gradient.d_weight, {out, in});
  if (gradient.d_bias.data) expect_shape("d_bias", gradient.d_bias, {out});
  if (w.weight.columns() != in)
    throw Error(w.weight.name + " has " + std::to_string(w.weight.columns()) +
                " columns, expected " + std::to_string(in));
  const Tensor<Real, 2> x_by_channel =  // (in, T)
      gradient.d_weight.data ? transposed(x, 0, in) : Tensor<Real, 2>();

  constexpr Index step = 512;
  for (Index o = 0; o < out; o += step) {
    const Index rows = std::min(step, out - o);
    const Tensor<Real, 2> d_y_by_row = transposed(d_y, o, o + rows);  // (rows, T)
    if (gradient.d_weight.data) {
      Tensor<Real, 2> d_w({rows, in});
      multiply<Real>(d_w, d_y_by_row, x_by_channel);
      add_all<Real>({gradient.d_weight[o].data, {rows, in}}, d_w);
    }
    if (d_x.data) {
      std::vector<Real> block(static_cast<std::size_t>(rows * in));
      read_rows(w.weight, o, o + rows, block.data());
      const Tensor<Real, 2> w_by_channel =  // (in, rows)
          transposed<Real>({block.data(), {rows, in}}, 0, in);
      Tensor<Real, 2> from_rows({T, in});
      multiply<Real>(from_rows, transposed<Real>(d_y_by_row, 0, T), w_by_channel);
      add_all<Real>(d_x, from_rows);
    }
    for (Index r = 0; r < rows && gradient.d_bias.data; ++r)
      for (Index t = 0; t < T; ++t) gradient.d_bias(o + r) += d_y(t, o + r);
  }
}

template void linear_backward(View<double, 2>, LinearGradient<double>, View<const double, 2>,
                              const Linear&, View<const double, 2>);
template void linear_backward(View<long double, 2>, LinearGradient<long double>,
                              View<const long double, 2>, const Linear&,
                              View<const long double, 2>);

}  // namespace dsa::reference
