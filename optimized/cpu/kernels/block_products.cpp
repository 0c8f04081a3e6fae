#include "optimized/cpu/kernels/block_products.hpp"

#include "optimized/cpu/kernels/counted.hpp"
#include "optimized/cpu/kernels/native.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

constexpr int tile_vectors = tile_columns / width;

/// Sums of rows [i, i + rows) and of `vectors` vectors of columns from j.
template <bool transposed, int rows, int vectors>
void multiply_tile(const BlockProduct& p, Index i, Index j) {
  const Index a_row = p.a_row, b_row = p.b_row, c_row = p.c_row, k = p.k;
  const float* a = p.a + (transposed ? i : i * a_row);
  const float* b = p.b + j;
  float* const c = p.c + i * c_row + j;
  Vector sums[rows][vectors] = {};
  if (p.add)
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] = vector_at(c + r * c_row + v * width);
  for (Index at = 0; at < k; ++at) {
    Vector columns[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) columns[v] = vector_at(b + v * width);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const Vector factor = fill(transposed ? a[r] : a[r * a_row]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] = fused(factor, columns[v], sums[r][v]);
    }
    a += transposed ? a_row : 1;
    b += b_row;
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) put(c + r * c_row + v * width, sums[r][v]);
}

template <bool transposed>
void multiply(const BlockProduct& p) {
  const Index vectors = (p.n + width - 1) / width;
  for (Index v = 0; v < vectors; v += tile_vectors)
    counted<tile_vectors>(vectors - v, [&]<int columns>() {
      for (Index i = 0; i < p.m; i += tile_rows)
        counted<tile_rows>(p.m - i, [&]<int rows>() {
          multiply_tile<transposed, rows, columns>(p, i, v * width);
        });
    });
}

/// A square of `width` rows and columns, transposed.
void transpose_square(float* to, Index to_row, const float* from, Index from_row) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  __m256 x[8], y[8];
  for (int r = 0; r < 8; ++r) x[r] = _mm256_loadu_ps(from + r * from_row);
  for (int r = 0; r < 8; r += 2) {
    y[r] = _mm256_unpacklo_ps(x[r], x[r + 1]);
    y[r + 1] = _mm256_unpackhi_ps(x[r], x[r + 1]);
  }
  // x[g + c]: in its half h, column 4 h + c of rows g to g + 3.
  for (int g = 0; g < 8; g += 4)
    for (int c = 0; c < 2; ++c) {
      x[g + 2 * c] = _mm256_shuffle_ps(y[g + c], y[g + 2 + c], 0x44);
      x[g + 2 * c + 1] = _mm256_shuffle_ps(y[g + c], y[g + 2 + c], 0xee);
    }
  for (int c = 0; c < 4; ++c) {
    _mm256_storeu_ps(to + c * to_row, _mm256_permute2f128_ps(x[c], x[4 + c], 0x20));
    _mm256_storeu_ps(to + (4 + c) * to_row, _mm256_permute2f128_ps(x[c], x[4 + c], 0x31));
  }
#else
  for (Index c = 0; c < width; ++c)
    for (Index r = 0; r < width; ++r) to[c * to_row + r] = from[r * from_row + c];
#endif
}

}  // namespace

void multiply_block(const BlockProduct& p) {
  if (p.a_transposed)
    multiply<true>(p);
  else
    multiply<false>(p);
}

void transpose(float* to, Index to_row, const float* from, Index from_row, Index rows,
               Index columns) {
  const Index whole_rows = rows / width * width, whole = columns / width * width;
  for (Index r = 0; r < whole_rows; r += width)
    for (Index c = 0; c < whole; c += width)
      transpose_square(to + c * to_row + r, to_row, from + r * from_row + c, from_row);
  for (Index c = 0; c < columns; ++c) {
    float* const row = to + c * to_row;
    for (Index r = c < whole ? whole_rows : 0; r < rows; ++r) row[r] = from[r * from_row + c];
    for (Index r = rows; r < to_row; ++r) row[r] = 0;
  }
}

void pack_rows(float* to, const float* from, Index from_row, Index rows, Index columns) {
  const Index to_row = packed_row(columns);
  for (Index r = 0; r < rows; ++r) {
    float* const row = to + r * to_row;
    std::memcpy(row, from + r * from_row, static_cast<std::size_t>(4 * columns));
    for (Index c = columns; c < to_row; ++c) row[c] = 0;
  }
}

}  // namespace dsa::cpu::DSA_TIER
