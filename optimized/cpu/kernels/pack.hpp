// optimized/cpu/kernels/pack.hpp — matrices of floats laid out for linear_piece.
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

}  // namespace dsa::cpu
