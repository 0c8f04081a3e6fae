// optimized/cuda/device/product_tile.cuh — 64 x 64 outputs of a product x W^T, by one block.
//
// 64 rows of x and of W lie in shared memory as tiles, 128 bytes of a row at a time, in two stages:
// one is copied while the other is multiplied. Sums lie in registers, in fp32. bf16 and e4m3 are
// multiplied on tensor cores. float is not, because all that they make of it is tf32, of 11
// significant bits: there, each thread multiplies 8 rows by 4.
#pragma once

#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/tiles.cuh"

namespace dsa::cuda::DSA_PLACE {

inline constexpr Index product_rows = 64, stage_bytes = 128, product_stages = 2;
inline constexpr int product_threads = 128;
inline constexpr Index product_shared_bytes = 2 * product_stages * product_rows * stage_bytes;

/// The first row of the stage that a run of channels lies in.
__device__ inline Index stage_of(Index run) { return run % product_stages * product_rows; }

/// One of the two operands: where its 64 rows are, and its stages, one behind the other.
template <class X>
struct Operand {
  static constexpr int rows_per_thread = product_rows * 8 / product_threads;
  Tile tile;
  Index C;
  const X* rows[rows_per_thread];  // of which this thread copies a chunk; null: zeros

  /// row_at(i) is the beginning of row i, of C elements, or null where there is none.
  template <class RowAt>
  __device__ Operand(SharedMemory& memory, Index C_, RowAt row_at)
      : tile(take_tile(memory, product_stages * product_rows, stage_bytes)), C(C_) {
    for (int i = 0; i < rows_per_thread; ++i) rows[i] = row_at(row(i));
  }
  __device__ static Index row(int i) { return threadIdx.x / 8 + product_threads / 8 * i; }
  __device__ Index runs() const { return (C * Index(sizeof(X)) + stage_bytes - 1) / stage_bytes; }

  __device__ void copy(Index run) const {
    const int chunk = threadIdx.x % 8;
    const Index begin = (run * stage_bytes + 16 * chunk) / Index(sizeof(X));
    for (int i = 0; i < rows_per_thread; ++i) {
      const bool valid = rows[i] != nullptr && begin < C;  // copied as far as there are any
      copy_async_16(tile.chunk(stage_of(run) + row(i), chunk), rows[i] + (valid ? begin : 0),
                    valid);
    }
  }
};

/// Calls f(run, stage_of(run)) for every 128 bytes of the operands' rows, when they have landed.
template <class X, class F>
__device__ void for_each_run(const Operand<X>& x, const Operand<X>& w, F f) {
  const Index runs = x.runs();
  if (runs > 0) x.copy(0), w.copy(0);
  copy_async_commit();
  for (Index run = 0; run < runs; ++run) {
    if (run + 1 < runs) {
      x.copy(run + 1);
      w.copy(run + 1);
    }
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    f(run, stage_of(run));
    __syncthreads();  // before the stage is filled again
  }
}

/// Four warps, each a quarter of 64 x 64 outputs: 2 x 4 fragments of 16 x 8, d[4 m + n].
template <class X>
struct Sums {
  float d[8][4] = {};

  /// Adds what one stage of two tiles gives.
  __device__ void add(Tile x, Tile w, Index stage) {
    const int warp = threadIdx.x / warp_size;
    for (Index step = 0; step < stage_bytes / 32; ++step) {
      ColumnFragment<X> columns[2][2];
      for (int n = 0; n < 2; ++n) load_columns(columns[n], w, stage + warp % 2 * 32 + 16 * n, step);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const RowFragment<X> rows = load_rows<X>(x, stage + warp / 2 * 32 + 16 * m, step);
#pragma unroll
        for (int n = 0; n < 4; ++n) multiply(d[4 * m + n], rows, columns[n / 2][n % 2]);
      }
    }
  }
  /// f(i, j, row, column): where d[i][j] lies in the 64 x 64.
  template <class F>
  __device__ static void each(F f) {
    const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        f(i, j, warp / 2 * 32 + i / 4 * 16 + lane / 4 + j / 2 * 8,
          warp % 2 * 32 + i % 4 * 8 + 2 * (lane % 4) + j % 2);
  }
  /// f(left, right, row, column): the sums of `column` and of the one 16 behind it. The left ones
  /// are the first 16 of every 32.
  template <class F>
  __device__ void each_pair(F f) const {
    each([&](int i, int j, int row, int column) {
      if (i % 4 < 2) f(d[i][j], d[i + 2][j], row, column);
    });
  }
};

/// Each thread 8 x 4 outputs, every eighth row by every sixteenth column: eight lanes that follow
/// one another read eight rows of W that do, which meet no bank conflict.
template <>
struct Sums<float> {
  float d[8][4] = {};

  __device__ void add(Tile x, Tile w, Index stage) {
    const int row = threadIdx.x / 16, column = threadIdx.x % 16;
    for (Index c = 0; c < stage_bytes / 16; ++c) {
      Four<float> ws[4];
      for (int j = 0; j < 4; ++j) ws[j] = four_of(w, stage + column + 16 * j, c);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const Four<float> xs = four_of(x, stage + row + 8 * i, c);
#pragma unroll
        for (int j = 0; j < 4; ++j)
          for (int k = 0; k < 4; ++k) d[i][j] += xs.at[k] * ws[j].at[k];
      }
    }
  }
  template <class F>
  __device__ static void each(F f) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        f(i, j, int(threadIdx.x) / 16 + 8 * i, int(threadIdx.x) % 16 + 16 * j);
  }
  template <class F>
  __device__ void each_pair(F f) const {
    each([&](int i, int j, int row, int column) {
      if (j % 2 == 0) f(d[i][j], d[i][j + 1], row, column);
    });
  }

 private:
  __device__ static Four<float> four_of(Tile tile, Index row, Index c) {
    return shared_load(reinterpret_cast<const Four<float>*>(tile.chunk(row, c)));
  }
};

}  // namespace dsa::cuda::DSA_PLACE
