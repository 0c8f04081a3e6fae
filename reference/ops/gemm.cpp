// This file is compiled several times with different -m flags. DSA_GEMM names the function, and
// `Eigen` is a macro for a namespace of its own in each: inline functions of Eigen compiled twice
// under one name would be merged by the linker, and an AVX-512 one could run anywhere.
//
// A row of y must not depend on the other rows (docs/decisions/0007-rows-round-alone.md). Eigen
// sums in an order of its own for products that are small, for vectors, and for what is left over
// after columns by four: none of these may be reached.
#define EIGEN_DONT_PARALLELIZE
#define EIGEN_GEMM_TO_COEFFBASED_THRESHOLD 1  // no product is too small
#include "reference/ops/gemm.hpp"

#include <Eigen/Core>

namespace dsa::reference {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Rows = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;
using ConstRows = Eigen::Map<const Matrix>;

constexpr Eigen::Index granule = 4;  // rows of x that Eigen's kernel takes at once
constexpr Eigen::Index few = 128;    // so many are copied sooner than W is packed a second time

/// `rows`, and zeros below.
Matrix padded(const ConstRows& rows, Eigen::Index count) {
  Matrix result = Matrix::Zero(count, rows.cols());
  result.topRows(rows.rows()) = rows;
  return result;
}

/// W has two rows or more: by a vector, Eigen multiplies otherwise.
void multiply(Rows y, const ConstRows& x, const ConstRows& w) {
  const Eigen::Index T = x.rows(), left = T % granule == 0 ? 0 : T < few ? T : T % granule;
  if (T > left) y.topRows(T - left).noalias() = x.topRows(T - left) * w.transpose();
  if (left == 0) return;
  const Eigen::Index in = x.cols(), count = (left + granule - 1) / granule * granule;
  const Matrix rest = padded({x.data() + (T - left) * in, left, in}, count);
  Matrix product(count, w.rows());
  product.noalias() = rest * w.transpose();
  y.bottomRows(left) = product.topRows(left);
}

/// The order of a sum also depends on these: not on the machine's, then.
bool fix_cache_sizes() {
  Eigen::setCpuCacheSizes(32 << 10, 1 << 20, 32 << 20);
  return true;
}

}  // namespace

void DSA_GEMM(double* y, std::int64_t y_stride, const double* x, const double* w, std::int64_t T,
              std::int64_t out, std::int64_t in) {
  static const bool fixed = fix_cache_sizes();
  (void)fixed;
  Rows Y(y, T, out, Eigen::OuterStride<>(y_stride));
  const ConstRows X(x, T, in), W(w, out, in);
  if (out > 1) return multiply(Y, X, W);
  const Matrix two = padded(W, 2);
  Matrix both(T, 2);
  multiply({both.data(), T, 2, Eigen::OuterStride<>(2)}, X, {two.data(), 2, in});
  Y = both.leftCols(1);
}

}  // namespace dsa::reference
