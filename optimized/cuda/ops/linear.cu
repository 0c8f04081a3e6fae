// v1: one thread an output. v2: tiles of 64 x 64 outputs; bf16 and e4m3 on tensor cores
// (product_tile.cuh). cublaslt: cublaslt.cu.
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/product_tile.cuh"
#include "optimized/cuda/ops/linear.cuh"

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

template <class X>
__global__ void __launch_bounds__(product_threads)
    linear_kernel(DeviceView<float, 2> y, DeviceView<const X, 2> x, DeviceView<const X, 2> w,
                  Scales scales, DeviceView<const float, 1> bias) {
  const Index T = x.shape[0], C = x.shape[1], F = w.shape[0];
  const Index first_t = blockIdx.y * product_rows, first_f = blockIdx.x * product_rows;
  SharedMemory memory;
  const Operand<X> xs(memory, C,
                      [&](Index i) { return first_t + i < T ? x[first_t + i].data : nullptr; });
  const Operand<X> ws(memory, C,
                      [&](Index i) { return first_f + i < F ? w[first_f + i].data : nullptr; });
  Sums<X> total;
  for_each_run(xs, ws, [&](Index run, Index stage) {
    if constexpr (std::is_same_v<X, e4m3>) {  // a run is the 128 channels of one scale
      const float w_scale = scales.w(first_f / scale_block, run);
      float scale[2][2];  // of the thread's rows, read before they are needed
      total.each([&](int i, int j, int row, int) {
        const Index t = first_t + row;
        if (i % 4 == 0 && j % 2 == 0) scale[i / 4][j / 2] = t < T ? scales.x(t, run) * w_scale : 0;
      });
      Sums<X> partial;
      partial.add(xs.tile, ws.tile, stage);
      total.each(
          [&](int i, int j, int, int) { total.d[i][j] += partial.d[i][j] * scale[i / 4][j / 2]; });
    } else {
      total.add(xs.tile, ws.tile, stage);
    }
  });
  total.each([&](int i, int j, int row, int column) {
    const Index t = first_t + row, f = first_f + column;
    if (t < T && f < F) y(t, f) = total.d[i][j] + (bias.shape[0] > 0 ? bias(f) : 0);
  });
}

std::string linear_refuses(Index C, Index bytes_per_element) {
  if (C * bytes_per_element % 16 == 0) return "";
  return "linear v2 takes rows of a multiple of 16 bytes, got " +
         std::to_string(C * bytes_per_element);
}

template <class X>
void linear(Stream stream, DeviceView<float, 2> y, DeviceView<const X, 2> x,
            DeviceView<const X, 2> w, Scales scales, DeviceView<const float, 1> bias) {
  expect_shapes(y, x, w, scales, bias);
  const std::string refusal = linear_refuses(x.shape[1], sizeof(X));
  require(refusal.empty(), refusal);
  const dim3 grid =
      grid_of(ceil_divide(w.shape[0], product_rows), ceil_divide(x.shape[0], product_rows));
  launch(stream, "linear v2", {grid, product_threads, product_shared_bytes}, linear_kernel<X>, y, x,
         w, scales, bias);
}

}  // namespace v2

template <class X>
void linear(Stream stream, DeviceView<float, 2> y, DeviceView<const X, 2> x,
            DeviceView<const X, 2> w, Scales scales, DeviceView<const float, 1> bias) {
  if constexpr (std::is_same_v<X, bf16>)
    if (cublaslt::linear_refuses(x.shape[0], x.shape[1], w.shape[0], bias.shape[0] > 0).empty())
      return cublaslt::linear(stream, y, x, w, scales, bias);
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
DSA_INSTANTIATE(v2::, float)
DSA_INSTANTIATE(v2::, bf16)
DSA_INSTANTIATE(v2::, e4m3)
DSA_INSTANTIATE(, float)
DSA_INSTANTIATE(, bf16)
DSA_INSTANTIATE(, e4m3)

}  // namespace dsa::cuda::DSA_PLACE
