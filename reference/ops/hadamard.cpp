#include "reference/ops/hadamard.hpp"

#include <cmath>

#include "reference/dual.hpp"

namespace dsa::reference {

template <class Real>
void hadamard(View<Real, 2> x) {
  using std::sqrt;
  const Index rows = x.shape[0], D = x.shape[1];
  require(
      D > 0 && (D & (D - 1)) == 0,
      "the Hadamard rotation needs a head size that is a power of two, got " + std::to_string(D));
  const Real scale = 1 / sqrt(static_cast<Real>(D));
  for (Index r = 0; r < rows; ++r) {
    for (Index half = 1; half < D; half *= 2)
      for (Index start = 0; start < D; start += 2 * half)
        for (Index i = start; i < start + half; ++i) {
          const Real a = x(r, i), b = x(r, i + half);
          x(r, i) = a + b;
          x(r, i + half) = a - b;
        }
    for (Index d = 0; d < D; ++d) x(r, d) *= scale;
  }
}

template <class Real>
void hadamard_backward(View<Real, 2> d_x) {
  hadamard(d_x);
}

template void hadamard(View<double, 2>);
template void hadamard(View<long double, 2>);
template void hadamard(View<Dual, 2>);
template void hadamard_backward(View<double, 2>);
template void hadamard_backward(View<long double, 2>);

}  // namespace dsa::reference
