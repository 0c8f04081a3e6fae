// This file is compiled several times with different -m flags. DSA_GEMM names the function, and
// `Eigen` is a macro for a namespace of its own in each: inline functions of Eigen compiled twice
// under one name would be merged by the linker, and an AVX-512 one could run anywhere.
#define EIGEN_DONT_PARALLELIZE
#include "reference/gemm.hpp"

#include <Eigen/Core>

namespace dsa::reference {

void DSA_GEMM(double* y, std::int64_t y_stride, const double* x, const double* w, std::int64_t T,
              std::int64_t out, std::int64_t in) {
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Eigen::Map<Matrix, 0, Eigen::OuterStride<>> Y(y, T, out, Eigen::OuterStride<>(y_stride));
  const Eigen::Map<const Matrix> X(x, T, in), W(w, out, in);
  Y.noalias() = X * W.transpose();
}

}  // namespace dsa::reference
