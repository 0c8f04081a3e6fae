#include "reference/ops/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "reference/dual.hpp"

namespace dsa::reference {
namespace {

/// The channel whose wavelength makes b turns within the original context.
double correction_dim(const Rope& rope, Index P, double b) {
  return static_cast<double>(P) *
         std::log(rope.original_max_position_embeddings / (b * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

template <class Real>
Real cosine(Real angle) {
  using std::cos;
  return cos(angle);
}
template <class Real>
Real sine(Real angle) {
  using std::sin;
  return sin(angle);
}

double mscale(double factor, double x) { return factor > 1 ? 0.1 * x * std::log(factor) + 1 : 1; }

}  // namespace

template <class Real>
std::vector<Real> rope_frequencies(const Rope& rope, Index P) {
  using std::pow;
  std::vector<Real> f(static_cast<std::size_t>(P / 2));
  for (Index i = 0; i < P / 2; ++i)
    f[static_cast<std::size_t>(i)] =
        pow(static_cast<Real>(rope.theta), -2 * static_cast<Real>(i) / static_cast<Real>(P));
  if (!rope.yarn) return f;

  double low = correction_dim(rope, P, rope.beta_fast);
  double high = correction_dim(rope, P, rope.beta_slow);
  if (rope.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, static_cast<double>(P - 1));
  if (low == high) high += 0.001;
  for (Index i = 0; i < P / 2; ++i) {
    Real& fi = f[static_cast<std::size_t>(i)];
    const Real ramp = std::clamp<Real>(
        (static_cast<Real>(i) - static_cast<Real>(low)) / static_cast<Real>(high - low), 0, 1);
    fi = fi / static_cast<Real>(rope.factor) * ramp + fi * (1 - ramp);
  }
  return f;
}

double rope_attention_factor(const Rope& rope) {
  if (!rope.yarn) return 1;
  if (rope.attention_factor) return *rope.attention_factor;
  if (rope.mscale != 0 && rope.mscale_all_dim != 0)
    return mscale(rope.factor, rope.mscale) / mscale(rope.factor, rope.mscale_all_dim);
  return mscale(rope.factor, 1);
}

template <class Real>
void rope_table(View<Real, 2> cos, View<Real, 2> sin, std::span<const Index> positions,
                const Rope& rope) {
  const Index T = static_cast<Index>(positions.size()), half = cos.shape[1];
  expect_shape("cos", cos, {T, half});
  expect_shape("sin", sin, {T, half});
  const std::vector<Real> f = rope_frequencies<Real>(rope, 2 * half);
  const Real factor = static_cast<Real>(rope_attention_factor(rope));
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < half; ++i) {
      const Real angle = static_cast<Real>(positions[static_cast<std::size_t>(t)]) *
                         f[static_cast<std::size_t>(i)];
      cos(t, i) = cosine(angle) * factor;
      sin(t, i) = sine(angle) * factor;
    }
}

template <class Real>
void rope(View<Real, 3> x, View<const Real, 2> cos, View<const Real, 2> sin, RopeLayout layout) {
  const Index T = x.shape[0], heads = x.shape[1], half = x.shape[2] / 2;
  expect_shape("cos", cos, {T, half});
  expect_shape("sin", sin, {T, half});
  for (Index t = 0; t < T; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < half; ++i) {
        const bool interleaved = layout == RopeLayout::interleaved;
        Real& a = x(t, h, interleaved ? 2 * i : i);
        Real& b = x(t, h, interleaved ? 2 * i + 1 : i + half);
        const Real a0 = a, b0 = b;
        a = a0 * cos(t, i) - b0 * sin(t, i);
        b = b0 * cos(t, i) + a0 * sin(t, i);
      }
}

template <class Real>
void rope_backward(View<Real, 3> d_x, View<const Real, 2> cos, View<const Real, 2> sin,
                   RopeLayout layout) {
  const Index T = d_x.shape[0], heads = d_x.shape[1], half = d_x.shape[2] / 2;
  expect_shape("cos", cos, {T, half});
  expect_shape("sin", sin, {T, half});
  for (Index t = 0; t < T; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < half; ++i) {
        const bool interleaved = layout == RopeLayout::interleaved;
        Real& a = d_x(t, h, interleaved ? 2 * i : i);
        Real& b = d_x(t, h, interleaved ? 2 * i + 1 : i + half);
        const Real a0 = a, b0 = b;
        a = a0 * cos(t, i) + b0 * sin(t, i);
        b = b0 * cos(t, i) - a0 * sin(t, i);
      }
}

template std::vector<double> rope_frequencies(const Rope&, Index);
template std::vector<long double> rope_frequencies(const Rope&, Index);
template void rope_table(View<double, 2>, View<double, 2>, std::span<const Index>, const Rope&);
template void rope_table(View<long double, 2>, View<long double, 2>, std::span<const Index>,
                         const Rope&);
template void rope(View<double, 3>, View<const double, 2>, View<const double, 2>, RopeLayout);
template void rope(View<long double, 3>, View<const long double, 2>, View<const long double, 2>,
                   RopeLayout);
template std::vector<Dual> rope_frequencies(const Rope&, Index);
template void rope_table(View<Dual, 2>, View<Dual, 2>, std::span<const Index>, const Rope&);
template void rope(View<Dual, 3>, View<const Dual, 2>, View<const Dual, 2>, RopeLayout);
template void rope_backward(View<double, 3>, View<const double, 2>, View<const double, 2>,
                            RopeLayout);
template void rope_backward(View<long double, 3>, View<const long double, 2>,
                            View<const long double, 2>, RopeLayout);

}  // namespace dsa::reference
