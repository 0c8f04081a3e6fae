// optimized/cpu/kernels/block_products.hpp — products of small matrices, of which attention and the
// indexer are made in training.
//
// The block of sums stays in registers; numbers of `a` are broadcast and rows of `b` are read as
// vectors. A sum is taken in ascending k whatever the block it stands in.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// Floats of a register: what rows of b and c are padded to.
constexpr std::int64_t lanes_of(Tier tier) {
  return tier == Tier::portable ? 4 : tier == Tier::avx2 ? 8 : 16;
}
/// Columns of a panel of keys, and what rows of packed matrices are padded to in every tier.
constexpr std::int64_t block_keys = 64, block_lanes = 16;

/// Floats between the rows of a packed matrix of n columns. An odd number of cache lines: rows do
/// not meet in the same sets of a cache.
constexpr std::int64_t packed_row(std::int64_t n) {
  return (n + block_lanes - 1) / block_lanes * block_lanes | block_lanes;
}

/// c[i][j] = sum_k a[i][k] b[k][j], i < m, j < n, added to what is there if `add`. Row i of c is
/// c + i c_row, and so on; where a is `a_transposed`, a[i][k] stands at a + k a_row + i. n is made
/// a multiple of the tier's lanes: rows of b and c have that room.
struct BlockProduct {
  float* c;
  std::int64_t c_row;
  const float* a;
  std::int64_t a_row;
  const float* b;
  std::int64_t b_row;
  std::int64_t m, n, k;
  bool a_transposed = false, add = false;
};
using MultiplyBlock = void(const BlockProduct&);
DSA_DECLARE_IN_EVERY_TIER(MultiplyBlock, multiply_block)

/// to[c][r] = from[r][c], r < rows, c < columns. Rows of `to` are to_row >= rows long, with zeros
/// behind the numbers. A panel of keys is one whose to_row is block_keys.
using Transpose = void(float* to, std::int64_t to_row, const float* from, std::int64_t from_row,
                       std::int64_t rows, std::int64_t columns);
DSA_DECLARE_IN_EVERY_TIER(Transpose, transpose)

/// to[r][c] = from[r][c], r < rows, c < columns; rows of packed_row(columns) floats with zeros
/// behind.
using PackRows = void(float* to, const float* from, std::int64_t from_row, std::int64_t rows,
                      std::int64_t columns);
DSA_DECLARE_IN_EVERY_TIER(PackRows, pack_rows)

}  // namespace dsa::cpu
