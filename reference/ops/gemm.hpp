// reference/ops/gemm.hpp — one product, compiled once per instruction set (see
// cmake/reference.cmake).
#pragma once

#include <cstdint>

namespace dsa::reference {

/// y[t*y_stride + o] = sum_i x[t*in + i] * w[o*in + i], t < T, o < out. A row of y is the same
/// bits, however many rows there are.
using Gemm = void(double* y, std::int64_t y_stride, const double* x, const double* w,
                  std::int64_t T, std::int64_t out, std::int64_t in);

Gemm gemm_portable, gemm_avx2, gemm_avx512;

}  // namespace dsa::reference
