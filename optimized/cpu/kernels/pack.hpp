// optimized/cpu/kernels/pack.hpp — matrices of floats laid out for linear_piece, and turned over.
#pragma once

#include "optimized/cpu/kernels/linear.hpp"

namespace dsa::cpu {

/// Half a panel: word (i, r) holds w[r * row_stride + i * column_stride], or two neighbouring
/// columns rounded to bf16. Missing rows and columns are zeros. One of the strides is 1.
struct PackHalf {
  bool bf16;
  const float* w;
  std::int64_t row_stride, column_stride;  // elements
  std::int64_t rows, columns;              // rows: at most linear_half
  std::uint32_t* half;                     // (linear_words, linear_half)
};
using PackKernel = void(const PackHalf&);
DSA_DECLARE_IN_EVERY_TIER(PackKernel, pack_half)

/// y[c,r] = x[r,c], rounded to bf16 where that is asked for.
struct TransposeBlock {
  const float* x;
  std::int64_t x_stride, rows, columns;  // columns: at most linear_half
  void* y;                               // floats, or bf16
  std::int64_t y_stride;                 // elements
  bool bf16;
};
using TransposeKernel = void(const TransposeBlock&);
DSA_DECLARE_IN_EVERY_TIER(TransposeKernel, transpose_block)

}  // namespace dsa::cpu
