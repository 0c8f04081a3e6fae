#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/numbers.cuh"
#include "optimized/cuda/device/product_tile.cuh"
#include "optimized/cuda/ops/linear_heads.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

template <class X>
void expect_shapes(DeviceView<float, 3> y, DeviceView<const X, 3> x, DeviceView<const X, 3> w) {
  const Index T = x.shape[0], N = w.shape[0], F = w.shape[1], C = w.shape[2];
  expect_shape("y", y, {T, N, F});
  expect_shape("x", x, {T, N, x.shape[2]});
  require(x.shape[2] >= C, "a head of x has " + std::to_string(x.shape[2]) +
                               " channels, expected at least " + std::to_string(C));
}

}  // namespace

namespace v1 {

template <class X>
__global__ void heads_kernel(DeviceView<float, 3> y, DeviceView<const X, 3> x,
                             DeviceView<const X, 3> w) {
  const Index N = w.shape[0], F = w.shape[1], C = w.shape[2];
  const Index t = blockIdx.x / N, n = blockIdx.x % N;
  const Index f = blockIdx.y * Index(blockDim.x) + threadIdx.x;
  if (f >= F) return;
  float sum = 0;
  for (Index c = 0; c < C; ++c) sum += widen(w(n, f, c)) * widen(x(t, n, c));
  y(t, n, f) = sum;
}

template <class X>
void linear_heads(Stream stream, DeviceView<float, 3> y, DeviceView<const X, 3> x,
                  DeviceView<const X, 3> w) {
  expect_shapes(y, x, w);
  constexpr int threads = 128;
  const dim3 grid = grid_of(x.shape[0] * w.shape[0], ceil_divide(w.shape[1], threads));
  launch(stream, "linear_heads v1", {grid, threads}, heads_kernel<X>, y, x, w);
}

}  // namespace v1

namespace v2 {

template <class X>
__global__ void __launch_bounds__(product_threads)
    heads_kernel(DeviceView<float, 3> y, DeviceView<const X, 3> x, DeviceView<const X, 3> w) {
  const Index T = x.shape[0], F = w.shape[1], C = w.shape[2];
  const Index tiles = gridDim.x / w.shape[0], n = blockIdx.x / tiles;
  const Index first_t = blockIdx.y * product_rows, first_f = blockIdx.x % tiles * product_rows;
  SharedMemory memory;
  const Operand<X> xs(memory, C,
                      [&](Index i) { return first_t + i < T ? x[first_t + i][n].data : nullptr; });
  const Operand<X> ws(memory, C,
                      [&](Index i) { return first_f + i < F ? w[n][first_f + i].data : nullptr; });
  Sums<X> total;
  for_each_run(xs, ws, [&](Index, Index stage) { total.add(xs.tile, ws.tile, stage); });
  total.each([&](int i, int j, int row, int column) {
    const Index t = first_t + row, f = first_f + column;
    if (t < T && f < F) y(t, n, f) = total.d[i][j];
  });
}

std::string linear_heads_refuses(Index width, Index C, Index bytes_per_element) {
  if (width * bytes_per_element % 16 == 0 && C * bytes_per_element % 16 == 0) return "";
  return "linear_heads v2 takes heads of a multiple of 16 bytes, got " +
         std::to_string(width * bytes_per_element) + ", of which " +
         std::to_string(C * bytes_per_element) + " count";
}

template <class X>
void linear_heads(Stream stream, DeviceView<float, 3> y, DeviceView<const X, 3> x,
                  DeviceView<const X, 3> w) {
  expect_shapes(y, x, w);
  const std::string refusal = linear_heads_refuses(x.shape[2], w.shape[2], sizeof(X));
  require(refusal.empty(), refusal);
  const dim3 grid = grid_of(w.shape[0] * ceil_divide(w.shape[1], product_rows),
                            ceil_divide(x.shape[0], product_rows));
  launch(stream, "linear_heads v2", {grid, product_threads, product_shared_bytes}, heads_kernel<X>,
         y, x, w);
}

}  // namespace v2

template <class X>
void linear_heads(Stream stream, DeviceView<float, 3> y, DeviceView<const X, 3> x,
                  DeviceView<const X, 3> w) {
  if (v2::linear_heads_refuses(x.shape[2], w.shape[2], sizeof(X)).empty())
    return v2::linear_heads(stream, y, x, w);
  v1::linear_heads(stream, y, x, w);
}

#define DSA_INSTANTIATE(space, X)                                                        \
  template void space linear_heads(Stream, DeviceView<float, 3>, DeviceView<const X, 3>, \
                                   DeviceView<const X, 3>);
DSA_INSTANTIATE(v1::, float)
DSA_INSTANTIATE(v1::, bf16)
DSA_INSTANTIATE(v2::, float)
DSA_INSTANTIATE(v2::, bf16)
DSA_INSTANTIATE(, float)
DSA_INSTANTIATE(, bf16)

}  // namespace dsa::cuda::DSA_PLACE
