// optimized/cpu/kernels/linear.hpp — one thread's piece of a matrix product, in every tier.
//
// How a matrix w (out, in) is packed, the same for every tier: rows of w in panels of 32, each two
// halves of 16. A half is `words` runs of 16 words of 32 bits, word i of a run belonging to row i
// of the half: a float, or the bf16 of two neighbouring columns, the even one low (what vdpbf16ps
// and the tiles of AMX multiply). Missing rows and columns are zeros.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

constexpr std::int64_t linear_half = 16, linear_panel = 2 * linear_half;

/// Rows of x that one call multiplies: a panel is read from memory once for all of them. Whole
/// pairs of tiles.
constexpr std::int64_t linear_rows = 96;

/// Words of a packed row: `in` floats, or pairs of bf16 up to whole tiles of 16 pairs.
constexpr std::int64_t linear_words(bool bf16, std::int64_t in) {
  return bf16 ? (in + 31) / 32 * 16 : in;
}

/// Bytes of scratch: x widened and sorted for the registers, and the sums of a panel.
constexpr std::int64_t linear_piece_scratch(std::int64_t in) {
  return 4 * linear_rows * ((in + 31) / 32 * 32 + linear_panel);
}

/// y[t,o] = sum_i w[o,i] x[which[t],i] + bias[o] for t < rows and the o of some panels; or that is
/// added to y, which then is float.
struct LinearPiece {
  bool bf16;                  // x and w; otherwise both are float
  const void* x;              // rows of `in`
  std::int64_t x_stride;      // elements
  bool by_column;             // x(t, i) is x[i * x_stride + t]; otherwise [t * x_stride + i]
  const std::int32_t* which;  // (rows), or null: 0, 1, 2, ...
  std::int64_t rows;          // at most linear_rows
  const std::uint32_t* w;     // all panels
  std::int64_t in, out;       // of w
  std::int64_t first_panel, last_panel;  // [first, last)
  float* y;                              // column 0 of row 0; this or y_bf16, the other null
  std::uint16_t* y_bf16;
  std::int64_t y_stride;  // elements
  const float* bias;      // (out), or null
  bool add;
  bool in_place;  // x is read where it is, unsorted: floats by row, without `which`
  void* scratch;  // linear_piece_scratch(in), 64-byte aligned
};

/// Every y[t,o] is summed by itself, in ascending order of i, 512 words at a time: the same bits
/// whatever the other rows, columns and threads.
using LinearKernel = void(const LinearPiece&);
DSA_DECLARE_IN_EVERY_TIER(LinearKernel, linear_piece)

}  // namespace dsa::cpu
