// optimized/cuda/device/tiles.cuh — rows of a matrix in shared memory, and products of them on
// tensor cores.
//
// A tile is a number of rows of the same number of bytes, a multiple of 128. Its 16-byte chunks are
// permuted within eight (chunk ^ row % 8), so that ldmatrix meets no bank conflict. Rows are copied
// byte by byte from global memory; what lies beyond a row's end, or beyond the matrix, is zero.
// A step is 32 bytes of a row: 16 bf16 or 32 e4m3. e4m3 numbers are f16 numbers too, and their
// products are exact in fp32: they go through the f16 instruction on every architecture, because
// the e4m3 instruction of sm_89 and sm_90 keeps fewer bits of its sums than fp32 has.
#pragma once

#include "optimized/cuda/device/numbers.cuh"

namespace dsa::cuda::DSA_PLACE {

__host__ __device__ constexpr Index tile_row_bytes(Index bytes) {
  return (bytes + 127) / 128 * 128;
}

struct Tile {
  Shared<unsigned char> bytes;
  Index row_bytes;

  __device__ unsigned char* chunk(Index row, Index c) const {
    return bytes.address(row * row_bytes + 16 * (c ^ row % 8));
  }
};

__device__ inline Tile take_tile(SharedMemory& memory, Index rows, Index row_bytes) {
  return {memory.take<unsigned char>(rows * row_bytes), row_bytes};
}

/// Begins to copy `bytes` bytes (a multiple of 4) from `from` into a row of the tile, in pieces of
/// 16 bytes where `wide` says that every address is a multiple of 16, else of 4. `from` null:
/// zeros. The lanes of a warp share the work.
__device__ inline void copy_row(Tile tile, Index row, const void* from, Index bytes, bool wide) {
  const int lane = threadIdx.x % warp_size;
  const auto* source = static_cast<const unsigned char*>(from);
  if (wide) {
    for (Index c = lane; c < tile.row_bytes / 16; c += warp_size) {
      const bool valid = source != nullptr && 16 * c < bytes;
      copy_async_16(tile.chunk(row, c), source + (valid ? 16 * c : 0), valid);
    }
    return;
  }
  for (Index i = lane; i < tile.row_bytes / 4; i += warp_size) {
    const bool valid = source != nullptr && 4 * i < bytes;
    copy_async_4(tile.chunk(row, i / 4) + 4 * (i % 4), source + (valid ? 4 * i : 0), valid);
  }
}

/// An operand of 16 rows, and one of 8, over one step: one or two instructions' worth.
template <class T>
inline constexpr int instructions = std::is_same_v<T, e4m3> ? 2 : 1;
template <class T>
struct RowFragment {
  std::uint32_t r[instructions<T>][4];
};
template <class T>
struct ColumnFragment {
  std::uint32_t r[instructions<T>][2];
};

/// The same number in IEEE half precision. A float's exponent is larger by 112.
__device__ inline std::uint32_t f16_of(std::uint8_t x) {
  const std::uint32_t sign = (x & 0x80u) << 8, magnitude = x & 0x7fu;
  if (magnitude == 0x7f) return sign | 0x7e00u;
  if (magnitude == 0) return sign;
  return sign | ((bits_of(widen(e4m3{std::uint8_t(magnitude)})) >> 13) - (112u << 10));
}
/// Elements 2 i and 2 i + 1 of four e4m3 numbers, as f16.
__device__ inline std::uint32_t f16_pair(std::uint32_t four, int i) {
  const std::uint32_t pair = four >> 16 * i;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  std::uint32_t wide;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(wide) : "h"(std::uint16_t(pair)));
  return wide;
#else
  return f16_of(std::uint8_t(pair)) | f16_of(std::uint8_t(pair >> 8)) << 16;
#endif
}

/// Rows [row, row + 16) of a tile. Which 16 of an e4m3 step's 32 channels an instruction takes, and
/// in what order, is the same for both operands; nothing else matters to the sum.
template <class T>
__device__ RowFragment<T> load_rows(Tile tile, Index row, Index step) {
  const int lane = threadIdx.x % warp_size;
  std::uint32_t raw[4];
  load_matrices(raw, tile.chunk(row + lane % 16, 2 * step + lane / 16), false);
  if constexpr (std::is_same_v<T, e4m3>) {
    RowFragment<T> f;
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j) {
        f.r[i][j] = f16_pair(raw[2 * i + j], 0);
        f.r[i][2 + j] = f16_pair(raw[2 * i + j], 1);
      }
    return f;
  } else {
    return {{{raw[0], raw[1], raw[2], raw[3]}}};
  }
}

/// Rows [row, row + 16) of a tile as the columns of two operands of 8.
template <class T>
__device__ void load_columns(ColumnFragment<T> (&f)[2], Tile tile, Index row, Index step) {
  const int lane = threadIdx.x % warp_size;
  std::uint32_t raw[4];
  load_matrices(raw, tile.chunk(row + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2), false);
  for (int n = 0; n < 2; ++n)
    for (int i = 0; i < 2; ++i) {
      if constexpr (std::is_same_v<T, e4m3>) {
        f[n].r[i][0] = f16_pair(raw[2 * n + i], 0);
        f[n].r[i][1] = f16_pair(raw[2 * n + i], 1);
      } else {
        f[n].r[0][i] = raw[2 * n + i];
      }
    }
}

/// d (16 x 8) += a (16 x step) b (step x 8).
template <class T>
__device__ void multiply(float (&d)[4], const RowFragment<T>& a, const ColumnFragment<T>& b) {
  for (int i = 0; i < instructions<T>; ++i)
    if constexpr (std::is_same_v<T, e4m3>)
      mma_f16(d, a.r[i], b.r[i]);
    else
      mma_bf16(d, a.r[i], b.r[i]);
}

}  // namespace dsa::cuda::DSA_PLACE
