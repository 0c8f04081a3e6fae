#include "reference/ops/swiglu.hpp"

#include <cmath>

#include "reference/dual.hpp"

namespace dsa::reference {

template <class Real>
void swiglu(View<Real, 2> h, View<const Real, 2> gate, View<const Real, 2> up) {
  using std::exp;
  for (Index i = 0; i < h.size(); ++i)
    h.data[i] = gate.data[i] / (1 + exp(-gate.data[i])) * up.data[i];
}

template <class Real>
void swiglu_backward(View<Real, 2> d_gate, View<Real, 2> d_up, View<const Real, 2> gate,
                     View<const Real, 2> up, View<const Real, 2> d_h) {
  using std::exp;
  expect_shape("d_gate", d_gate, gate.shape);
  expect_shape("d_up", d_up, gate.shape);
  expect_shape("up", up, gate.shape);
  expect_shape("d_h", d_h, gate.shape);
  for (Index i = 0; i < gate.size(); ++i) {
    const Real z = gate.data[i], a = 1 / (1 + exp(-z));
    d_up.data[i] += d_h.data[i] * z * a;
    d_gate.data[i] += d_h.data[i] * up.data[i] * a * (1 + z * (1 - a));
  }
}

template void swiglu(View<double, 2>, View<const double, 2>, View<const double, 2>);
template void swiglu(View<long double, 2>, View<const long double, 2>, View<const long double, 2>);
template void swiglu(View<Dual, 2>, View<const Dual, 2>, View<const Dual, 2>);
template void swiglu_backward(View<double, 2>, View<double, 2>, View<const double, 2>,
                              View<const double, 2>, View<const double, 2>);
template void swiglu_backward(View<long double, 2>, View<long double, 2>,
                              View<const long double, 2>, View<const long double, 2>,
                              View<const long double, 2>);

}  // namespace dsa::reference
