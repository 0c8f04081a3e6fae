#include "optimized/cuda/launch.cuh"
#include "optimized/cuda/linear.cuh"
#include "optimized/cuda/tiles.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

constexpr Index scale_block = 128;  // channels that share a scale

template <class X>
void expect_shapes(DeviceView<float, 2> y, DeviceView<const X, 2> x, DeviceView<const X, 2> w,
                   Scales scales, DeviceView<const float, 1> bias) {
  const Index T = x.shape[0], C = x.shape[1], F = w.shape[0];
  expect_shape("y", y, {T, F});
  expect_shape("w", w, {F, C});
  if (bias.shape[0] > 0) expect_shape("bias", bias, {F});
  if (!std::is_same_v<X, e4m3>) return;
  expect_shape("x_scale", scales.x, {T, ceil_divide(C, scale_block)});
  expect_shape("w_scale", scales.w, {ceil_divide(F, scale_block), ceil_divide(C, scale_block)});
}

}  // namespace

namespace v1 {

template <class X>
__global__ void linear_kernel(DeviceView<float, 2> y, DeviceView<const X, 2> x,
                              DeviceView<const X, 2> w, Scales scales,
                              DeviceView<const float, 1> bias) {
  const Index C = x.shape[1], F = w.shape[0];
  const Index t = blockIdx.x, f = blockIdx.y * Index(blockDim.x) + threadIdx.x;
  if (f >= F) return;
  float sum = 0;
  if constexpr (std::is_same_v<X, e4m3>) {
    for (Index b = 0; b * scale_block < C; ++b) {
      float partial = 0;
      for (Index c = b * scale_block; c < C && c < (b + 1) * scale_block; ++c)
        partial += widen(x(t, c)) * widen(w(f, c));
      sum += partial * (scales.x(t, b) * scales.w(f / scale_block, b));
    }
  } else {
    for (Index c = 0; c < C; ++c) sum += widen(x(t, c)) * widen(w(f, c));
  }
  y(t, f) = bias.shape[0] > 0 ? sum + bias(f) : sum;
}

template <class X>
void linear(Stream stream, DeviceView<float, 2> y, DeviceView<const X, 2> x,
            DeviceView<const X, 2> w, Scales scales, DeviceView<const float, 1> bias) {
  expect_shapes(y, x, w, scales, bias);
  constexpr int threads = 128;
  launch(stream, "linear v1", {grid_of(x.shape[0], ceil_divide(w.shape[0], threads)), threads},
         linear_kernel<X>, y, x, w, scales, bias);
}

}  // namespace v1

namespace v2 {

constexpr Index tile_rows = 64, stage_bytes = 128, stages = 2;
constexpr int threads = 128;

/// The first row of the stage that a block of channels lies in.
__device__ inline Index stage_of(Index block) { return block % stages * tile_rows; }

/// One of the two operands: 64 rows of it, 128 bytes at a time.
template <class X>
struct Operand {
  DeviceView<const X, 2> rows;
  Index first;
  Tile tile;  // the stages, one behind the other

  __device__ void copy(Index block) const {
    const Index C = rows.shape[1], begin = block * stage_bytes / Index(sizeof(X));
    const Index bytes = (C - begin) * Index(sizeof(X));  // copied as far as there are any
    const int chunk = threadIdx.x % 8;
    for (Index row = threadIdx.x / 8; row < tile_rows; row += threads / 8) {
      const bool valid = first + row < rows.shape[0] && 16 * chunk < bytes;
      const X* from = valid ? &rows(first + row, begin + 16 / Index(sizeof(X)) * chunk) : rows.data;
      copy_async_16(tile.chunk(stage_of(block) + row, chunk), from, valid);
    }
  }
};

/// Four warps, each a quarter of 64 x 64 outputs: 2 x 4 fragments of 16 x 8.
struct Sums {
  float d[2][4][4] = {};

  template <class X>
  __device__ void add(Tile x, Tile w, Index stage) {
    const int warp = threadIdx.x / warp_size;
    for (Index step = 0; step < stage_bytes / 32; ++step) {
      ColumnFragment<X> columns[2][2];
      for (int n = 0; n < 2; ++n) load_columns(columns[n], w, stage + warp % 2 * 32 + 16 * n, step);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const RowFragment<X> rows = load_rows<X>(x, stage + warp / 2 * 32 + 16 * m, step);
#pragma unroll
        for (int n = 0; n < 4; ++n) multiply(d[m][n], rows, columns[n / 2][n % 2]);
      }
    }
  }
  /// f(m, n, r, row, column): where d[m][n][r] lies in the 64 x 64.
  template <class F>
  __device__ static void each(F f) {
    const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int r = 0; r < 4; ++r)
          f(m, n, r, warp / 2 * 32 + 16 * m + lane / 4 + 8 * (r / 2),
            warp % 2 * 32 + 8 * n + 2 * (lane % 4) + r % 2);
  }
};

template <class X>
__global__ void __launch_bounds__(threads)
    linear_kernel(DeviceView<float, 2> y, DeviceView<const X, 2> x, DeviceView<const X, 2> w,
                  Scales scales, DeviceView<const float, 1> bias) {
  const Index T = x.shape[0], C = x.shape[1], F = w.shape[0];
  SharedMemory memory;
  const Tile x_tile = take_tile(memory, stages * tile_rows, stage_bytes);
  const Tile w_tile = take_tile(memory, stages * tile_rows, stage_bytes);
  const Operand<X> xs{x, blockIdx.y * tile_rows, x_tile}, ws{w, blockIdx.x * tile_rows, w_tile};
  const Index blocks = (C * Index(sizeof(X)) + stage_bytes - 1) / stage_bytes;
  Sums total;
  if (blocks > 0) xs.copy(0), ws.copy(0);
  copy_async_commit();
  for (Index b = 0; b < blocks; ++b) {
    if (b + 1 < blocks) xs.copy(b + 1), ws.copy(b + 1);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    if constexpr (std::is_same_v<X, e4m3>) {  // a stage is the 128 channels of one scale
      Sums partial;
      partial.add<X>(x_tile, w_tile, stage_of(b));
      const float w_scale = scales.w(ws.first / scale_block, b);
      total.each([&](int m, int n, int r, int row, int) {
        const Index t = xs.first + row;
        total.d[m][n][r] += partial.d[m][n][r] * (t < T ? scales.x(t, b) * w_scale : 0);
      });
    } else {
      total.add<X>(x_tile, w_tile, stage_of(b));
    }
    __syncthreads();  // before the stage is filled again
  }
  total.each([&](int m, int n, int r, int row, int column) {
    const Index t = xs.first + row, f = ws.first + column;
    if (t < T && f < F) y(t, f) = total.d[m][n][r] + (bias.shape[0] > 0 ? bias(f) : 0);
  });
}

std::string linear_refuses(Index C, Index bytes_an_element) {
  if (C * bytes_an_element % 16 == 0) return "";
  return "linear v2 takes rows of a multiple of 16 bytes, got " +
         std::to_string(C * bytes_an_element);
}

template <class X>
void linear(Stream stream, DeviceView<float, 2> y, DeviceView<const X, 2> x,
            DeviceView<const X, 2> w, Scales scales, DeviceView<const float, 1> bias) {
  expect_shapes(y, x, w, scales, bias);
  const std::string refusal = linear_refuses(x.shape[1], sizeof(X));
  require(refusal.empty(), refusal);
  const dim3 grid = grid_of(ceil_divide(w.shape[0], tile_rows), ceil_divide(x.shape[0], tile_rows));
  launch(stream, "linear v2", {grid, threads, 2 * stages * tile_rows * stage_bytes},
         linear_kernel<X>, y, x, w, scales, bias);
}

}  // namespace v2

template <class X>
void linear(Stream stream, DeviceView<float, 2> y, DeviceView<const X, 2> x,
            DeviceView<const X, 2> w, Scales scales, DeviceView<const float, 1> bias) {
  if constexpr (!std::is_same_v<X, float>)
    if (v2::linear_refuses(x.shape[1], sizeof(X)).empty())
      return v2::linear(stream, y, x, w, scales, bias);
  v1::linear(stream, y, x, w, scales, bias);
}

#define DSA_INSTANTIATE(space, X)                                                  \
  template void space linear(Stream, DeviceView<float, 2>, DeviceView<const X, 2>, \
                             DeviceView<const X, 2>, Scales, DeviceView<const float, 1>);
DSA_INSTANTIATE(v1::, float)
DSA_INSTANTIATE(v1::, bf16)
DSA_INSTANTIATE(v1::, e4m3)
DSA_INSTANTIATE(v2::, bf16)
DSA_INSTANTIATE(v2::, e4m3)
DSA_INSTANTIATE(, float)
DSA_INSTANTIATE(, bf16)
DSA_INSTANTIATE(, e4m3)

}  // namespace dsa::cuda::DSA_PLACE
