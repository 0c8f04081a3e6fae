#include "reference/ops/linear.hpp"

#include <algorithm>
#include <type_traits>

#include "core/threads.hpp"
#include "reference/ops/dot.hpp"
#include "reference/ops/gemm.hpp"

namespace dsa::reference {
namespace {

struct Kernel {
  Gemm* gemm;
  const char* name;
};
Kernel kernel() {
#ifdef DSA_X86
  static const Kernel best =
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
          ? Kernel{gemm_avx512, "avx512"}
      : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
          ? Kernel{gemm_avx2, "avx2"}
          : Kernel{gemm_portable, "portable"};
  return best;
#else
  return {gemm_portable, "portable"};
#endif
}

/// Columns [o, o + w.rows) of y.
template <class Real>
void multiply_block(View<Real, 2> y, View<const Real, 2> x, const Real* w, Index o, Index rows) {
  const Index T = x.shape[0], in = x.shape[1];
  if constexpr (std::is_same_v<Real, double>) {
    kernel().gemm(y.data + o, y.shape[1], x.data, w, T, rows, in);
  } else {
    for (Index t = 0; t < T; ++t)
      for (Index r = 0; r < rows; ++r) y(t, o + r) = dot(x[t].data, w + r * in, in);
  }
}

/// W itself from row o on, where it already lies in memory as Reals (and aligned).
template <class Real>
const Real* resident_rows(const Parameter& w, Index o) {
  if (!std::is_same_v<Real, double> || w.dtype != Dtype::f64 || !w.seen_finite || w.loaded_as)
    return nullptr;
  const std::byte* at = w.data + o * w.columns() * static_cast<Index>(sizeof(Real));
  if (reinterpret_cast<std::uintptr_t>(at) % alignof(Real) != 0) return nullptr;
  return reinterpret_cast<const Real*>(at);
}

/// Rows of W in one block: about 4 MB of numbers, the same for every number of threads.
Index block_rows(Index in) {
  return std::clamp<Index>((Index{1} << 19) / std::max<Index>(in, 1), 8, 256);
}

}  // namespace

const char* linear_kernel() { return kernel().name; }

template <class Real>
void multiply(View<Real, 2> y, View<const Real, 2> x, View<const Real, 2> w) {
  const Index T = x.shape[0], in = x.shape[1], out = w.shape[0], step = block_rows(in);
  expect_shape("w", w, {out, in});
  expect_shape("y", y, {T, out});
  parallel_for((out + step - 1) / step, T * step * in / 8, [&](Index block) {
    const Index o = block * step;
    multiply_block(y, x, w[o].data, o, std::min(step, out - o));
  });
}

template <class Real>
void linear(View<Real, 2> y, View<const Real, 2> x, const Linear& w, View<Real, 1> squares) {
  const Index T = x.shape[0], in = x.shape[1], out = w.weight.rows(), step = block_rows(in);
  expect_shape("y", y, {T, out});
  if (w.weight.columns() != in)
    throw Error(w.weight.name + " has " + std::to_string(w.weight.columns()) +
                " columns, expected " + std::to_string(in));
  const std::vector<Real> bias =
      w.bias.present() ? read_all<Real>(w.bias) : std::vector<Real>(static_cast<std::size_t>(out));
  parallel_for((out + step - 1) / step, (T + 8) * step * in / 8, [&](Index b) {
    const Index o = b * step, rows = std::min(step, out - o);
    std::vector<Real> block;
    const Real* values = resident_rows<Real>(w.weight, o);
    if (values == nullptr) {
      block.resize(static_cast<std::size_t>(rows * in));
      read_rows(w.weight, o, o + rows, block.data());
      values = block.data();
    }
    multiply_block(y, x, values, o, rows);
    for (Index r = 0; r < rows && squares.data != nullptr; ++r)
      squares(o + r) = dot(values + r * in, values + r * in, in);
    if (w.bias.present())
      for (Index t = 0; t < T; ++t)
        for (Index r = o; r < o + rows; ++r) y(t, r) += bias[static_cast<std::size_t>(r)];
  });
}

template <class Real>
void linear(View<Real, 2> y, View<const Real, 2> x, const Linear& w) {
  linear(y, x, w, View<Real, 1>{});
}

template void multiply(View<double, 2>, View<const double, 2>, View<const double, 2>);
template void multiply(View<long double, 2>, View<const long double, 2>,
                       View<const long double, 2>);
template void linear(View<double, 2>, View<const double, 2>, const Linear&, View<double, 1>);
template void linear(View<long double, 2>, View<const long double, 2>, const Linear&,
                     View<long double, 1>);
template void linear(View<double, 2>, View<const double, 2>, const Linear&);
template void multiply(View<Dual, 2>, View<const Dual, 2>, View<const Dual, 2>);
template void linear(View<Dual, 2>, View<const Dual, 2>, const Linear&, View<Dual, 1>);
template void linear(View<Dual, 2>, View<const Dual, 2>, const Linear&);
template void linear(View<long double, 2>, View<const long double, 2>, const Linear&);

}  // namespace dsa::reference
