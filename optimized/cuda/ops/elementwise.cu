#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/numbers.cuh"
#include "optimized/cuda/ops/elementwise.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

constexpr int threads = 256;

LaunchShape one_thread_each(Index n) { return {grid_of(ceil_divide(n, threads)), threads}; }

__device__ Index element() { return blockIdx.x * Index(threads) + threadIdx.x; }

template <class Y, class X>
__global__ void copy_kernel(DeviceView<Y, 2> y, Index y_first, DeviceView<const X, 2> x,
                            Index x_first, Index n) {
  const Index i = element(), row = i / n, column = i % n;
  if (row < x.shape[0]) y(row, y_first + column) = narrow<Y>(widen(x(row, x_first + column)));
}

__global__ void add_kernel(DeviceView<float, 2> x, DeviceView<const float, 2> y) {
  const Index i = element(), row = i / x.shape[1], column = i % x.shape[1];
  if (row < x.shape[0]) x(row, column) += y(row, column);
}

__global__ void scale_kernel(DeviceView<float, 2> w, float scale,
                             DeviceView<const float, 2> q_scale) {
  const Index i = element(), t = i / w.shape[1], h = i % w.shape[1];
  if (t >= w.shape[0]) return;
  w(t, h) *= scale;
  if (q_scale.shape[0] > 0) w(t, h) *= q_scale(t, h);
}

__global__ void fill_kernel(DeviceView<float, 2> x, float value) {
  const Index i = element(), row = i / x.shape[1], column = i % x.shape[1];
  if (row < x.shape[0]) x(row, column) = value;
}

template <class Row>
__global__ void store_kernel(Pages<Row> cache, DeviceView<const Row, 2> fresh,
                             DeviceView<const std::int32_t, 1> end) {
  const Index i = element(), t = i / fresh.shape[1], column = i % fresh.shape[1];
  if (t < fresh.shape[0]) cache.row(end(t) - 1)(column) = fresh(t, column);
}

__device__ bool tells_of_nan(float x) { return x != x; }
__device__ bool tells_of_nan(std::int32_t at) { return at != -1; }

/// Every thread that writes writes the same.
template <class T>
__global__ void watch_kernel(DeviceView<std::int32_t, 1> flag, std::int32_t mark,
                             DeviceView<const T, 2> found) {
  const Index i = element(), row = i / found.shape[1], column = i % found.shape[1];
  if (row < found.shape[0] && tells_of_nan(found(row, column)) && flag(0) == 0) flag(0) = mark;
}

}  // namespace

template <class Y, class X>
void copy(Stream stream, DeviceView<Y, 2> y, Index y_first, DeviceView<const X, 2> x, Index x_first,
          Index n) {
  expect_shape("y", y, {x.shape[0], y.shape[1]});
  require(0 <= y_first && y_first + n <= y.shape[1] && 0 <= x_first && x_first + n <= x.shape[1],
          std::to_string(n) + " columns are to be copied, which one of the two does not have");
  launch(stream, "copy", one_thread_each(x.shape[0] * n), copy_kernel<Y, X>, y, y_first, x, x_first,
         n);
}

void add(Stream stream, DeviceView<float, 2> x, DeviceView<const float, 2> y) {
  expect_shape("y", y, {x.shape[0], x.shape[1]});
  launch(stream, "add", one_thread_each(x.shape[0] * x.shape[1]), add_kernel, x, y);
}

void scale_weights(Stream stream, DeviceView<float, 2> w, float scale,
                   DeviceView<const float, 2> q_scale) {
  if (q_scale.shape[0] > 0) expect_shape("q_scale", q_scale, {w.shape[0], w.shape[1]});
  launch(stream, "scale_weights", one_thread_each(w.shape[0] * w.shape[1]), scale_kernel, w, scale,
         q_scale);
}

void fill(Stream stream, DeviceView<float, 2> x, float value) {
  launch(stream, "fill", one_thread_each(x.shape[0] * x.shape[1]), fill_kernel, x, value);
}

template <class Row>
void store_rows(Stream stream, Pages<Row> cache, DeviceView<const Row, 2> fresh,
                DeviceView<const std::int32_t, 1> end) {
  expect_shape("fresh", fresh, {end.shape[0], cache.width});
  launch(stream, "store_rows", one_thread_each(end.shape[0] * cache.width), store_kernel<Row>,
         cache, fresh, end);
}

template <class T>
void watch(Stream stream, DeviceView<std::int32_t, 1> flag, std::int32_t mark,
           DeviceView<const T, 2> found) {
  expect_shape("flag", flag, {1});
  launch(stream, "watch", one_thread_each(found.shape[0] * found.shape[1]), watch_kernel<T>, flag,
         mark, found);
}

template void copy(Stream, DeviceView<float, 2>, Index, DeviceView<const float, 2>, Index, Index);
template void copy(Stream, DeviceView<bf16, 2>, Index, DeviceView<const float, 2>, Index, Index);
template void copy(Stream, DeviceView<float, 2>, Index, DeviceView<const bf16, 2>, Index, Index);
template void copy(Stream, DeviceView<bf16, 2>, Index, DeviceView<const bf16, 2>, Index, Index);
template void store_rows(Stream, Pages<float>, DeviceView<const float, 2>,
                         DeviceView<const std::int32_t, 1>);
template void store_rows(Stream, Pages<bf16>, DeviceView<const bf16, 2>,
                         DeviceView<const std::int32_t, 1>);
template void store_rows(Stream, Pages<e4m3>, DeviceView<const e4m3, 2>,
                         DeviceView<const std::int32_t, 1>);
template void watch(Stream, DeviceView<std::int32_t, 1>, std::int32_t, DeviceView<const float, 2>);
template void watch(Stream, DeviceView<std::int32_t, 1>, std::int32_t,
                    DeviceView<const std::int32_t, 2>);

}  // namespace dsa::cuda::DSA_PLACE
