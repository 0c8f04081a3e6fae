// v1: one block a row, which is read once for every sum and once for the answer. v2: one block a
// row, which is read once, four numbers at a time, into registers. Sums are trees of fixed shape
// over a block's threads.
#include <algorithm>

#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/numbers.cuh"
#include "optimized/cuda/ops/norms.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

constexpr int most_threads = 256;

/// The reciprocal of sqrt( mean of C squares + eps ).
__device__ float reciprocal_root(float squares, Index C, double eps) {
  return float(1 / sqrt(double(squares) / double(C) + eps));
}

template <class Y>
void expect_shapes(DeviceView<Y, 2> y, DeviceView<const float, 2> x, DeviceView<const float, 1> g) {
  expect_shape("y", y, {x.shape[0], x.shape[1]});
  expect_shape("g", g, {x.shape[1]});
}

}  // namespace

namespace v1 {

/// term(x[0]) + ... + term(x[C-1])
template <class Term>
__device__ float sum_of(DeviceView<const float, 1> x, Term term, Shared<float> scratch) {
  float sum = 0;
  for (Index c = threadIdx.x; c < x.shape[0]; c += blockDim.x) sum += term(x(c));
  return across_block(sum, Sum{}, scratch);
}

template <class Y>
__global__ void rmsnorm_kernel(DeviceView<Y, 2> y, DeviceView<const float, 2> x,
                               DeviceView<const float, 1> g, double eps) {
  const Index t = blockIdx.x, C = x.shape[1];
  SharedMemory memory;
  const Shared<float> scratch = memory.take<float>(most_threads / warp_size);
  const auto square = [](float value) { return value * value; };
  const float r = reciprocal_root(sum_of(x[t], square, scratch), C, eps);
  for (Index c = threadIdx.x; c < C; c += blockDim.x) y(t, c) = narrow<Y>(g(c) * (x(t, c) * r));
}

template <class Y>
__global__ void layernorm_kernel(DeviceView<Y, 2> y, DeviceView<const float, 2> x,
                                 DeviceView<const float, 1> g, DeviceView<const float, 1> b,
                                 double eps) {
  const Index t = blockIdx.x, C = x.shape[1];
  SharedMemory memory;
  const Shared<float> scratch = memory.take<float>(most_threads / warp_size);
  const auto same = [](float value) { return value; };
  const float mean = sum_of(x[t], same, scratch) / float(C);
  const auto square = [&](float value) { return (value - mean) * (value - mean); };
  const float r = reciprocal_root(sum_of(x[t], square, scratch), C, eps);
  for (Index c = threadIdx.x; c < C; c += blockDim.x)
    y(t, c) = narrow<Y>(g(c) * ((x(t, c) - mean) * r) + b(c));
}

LaunchShape one_block_a_row(Index rows) {
  return {grid_of(rows), most_threads, shared_room<float>(most_threads / warp_size)};
}

template <class Y>
void rmsnorm(Stream stream, DeviceView<Y, 2> y, DeviceView<const float, 2> x,
             DeviceView<const float, 1> g, double eps) {
  expect_shapes(y, x, g);
  launch(stream, "rmsnorm v1", one_block_a_row(x.shape[0]), rmsnorm_kernel<Y>, y, x, g, eps);
}

template <class Y>
void layernorm(Stream stream, DeviceView<Y, 2> y, DeviceView<const float, 2> x,
               DeviceView<const float, 1> g, DeviceView<const float, 1> b, double eps) {
  expect_shapes(y, x, g);
  expect_shape("b", b, {x.shape[1]});
  launch(stream, "layernorm v1", one_block_a_row(x.shape[0]), layernorm_kernel<Y>, y, x, g, b, eps);
}

}  // namespace v1

namespace v2 {

constexpr int fours_per_thread = 8;
constexpr Index most_channels = 4 * most_threads * fours_per_thread;

/// A row in the registers of a block: a thread has four neighbours, and every blockDim.x-th four
/// after them.
struct Row {
  Four<float> x[fours_per_thread];
  Index C;

  __device__ explicit Row(DeviceView<const float, 1> row) : C(row.shape[0]) {
    each([&](int i, Index c) { x[i] = load_four(&row(c)); });
  }
  /// f(i, c): x[i] holds channels c ... c + 3.
  template <class F>
  __device__ void each(F f) const {
#pragma unroll
    for (int i = 0; i < fours_per_thread; ++i)
      if (const Index c = 4 * (threadIdx.x + i * Index(blockDim.x)); c < C) f(i, c);
  }
  template <class Term>
  __device__ float sum_of(Term term, Shared<float> scratch) const {
    float sum = 0;
    each([&](int i, Index) {
      for (int j = 0; j < 4; ++j) sum += term(x[i].at[j]);
    });
    return across_block(sum, Sum{}, scratch);
  }
  /// y[c ... c + 3] = of(x[c ... c + 3], c)
  template <class Y, class Of>
  __device__ void write(DeviceView<Y, 1> y, Of of) const {
    each([&](int i, Index c) {
      const auto four = of(x[i], c);
      Four<Y> narrowed;
      for (int j = 0; j < 4; ++j) narrowed.at[j] = narrow<Y>(four.at[j]);
      store_four(&y(c), narrowed);
    });
  }
};

template <class Y>
__global__ void __launch_bounds__(most_threads)
    rmsnorm_kernel(DeviceView<Y, 2> y, DeviceView<const float, 2> x, DeviceView<const float, 1> g,
                   double eps) {
  const Index t = blockIdx.x;
  SharedMemory memory;
  const Shared<float> scratch = memory.take<float>(most_threads / warp_size);
  const Row row(x[t]);
  const auto square = [](float value) { return value * value; };
  const float r = reciprocal_root(row.sum_of(square, scratch), row.C, eps);
  row.write(y[t], [&](Four<float> four, Index c) {
    const Four<float> gain = load_four(&g(c));
    for (int j = 0; j < 4; ++j) four.at[j] = gain.at[j] * (four.at[j] * r);
    return four;
  });
}

template <class Y>
__global__ void __launch_bounds__(most_threads)
    layernorm_kernel(DeviceView<Y, 2> y, DeviceView<const float, 2> x, DeviceView<const float, 1> g,
                     DeviceView<const float, 1> b, double eps) {
  const Index t = blockIdx.x;
  SharedMemory memory;
  const Shared<float> scratch = memory.take<float>(most_threads / warp_size);
  const Row row(x[t]);
  const auto same = [](float value) { return value; };
  const float mean = row.sum_of(same, scratch) / float(row.C);
  const auto square = [&](float value) { return (value - mean) * (value - mean); };
  const float r = reciprocal_root(row.sum_of(square, scratch), row.C, eps);
  row.write(y[t], [&](Four<float> four, Index c) {
    const Four<float> gain = load_four(&g(c)), offset = load_four(&b(c));
    for (int j = 0; j < 4; ++j) four.at[j] = gain.at[j] * ((four.at[j] - mean) * r) + offset.at[j];
    return four;
  });
}

/// No more warps than have something to hold.
LaunchShape one_block_a_row(Index rows, Index C) {
  const Index warps = std::clamp<Index>(ceil_divide(C, 4 * warp_size), 1, most_threads / warp_size);
  return {grid_of(rows), static_cast<unsigned>(warp_size * warps),
          shared_room<float>(most_threads / warp_size)};
}

std::string norm_refuses(Index C) {
  if (C % 4 == 0 && C <= most_channels) return "";
  return "norms v2 take rows of a multiple of 4 channels, up to " + std::to_string(most_channels) +
         ", got " + std::to_string(C);
}

template <class Y>
void rmsnorm(Stream stream, DeviceView<Y, 2> y, DeviceView<const float, 2> x,
             DeviceView<const float, 1> g, double eps) {
  expect_shapes(y, x, g);
  require(norm_refuses(x.shape[1]).empty(), norm_refuses(x.shape[1]));
  launch(stream, "rmsnorm v2", one_block_a_row(x.shape[0], x.shape[1]), rmsnorm_kernel<Y>, y, x, g,
         eps);
}

template <class Y>
void layernorm(Stream stream, DeviceView<Y, 2> y, DeviceView<const float, 2> x,
               DeviceView<const float, 1> g, DeviceView<const float, 1> b, double eps) {
  expect_shapes(y, x, g);
  expect_shape("b", b, {x.shape[1]});
  require(norm_refuses(x.shape[1]).empty(), norm_refuses(x.shape[1]));
  launch(stream, "layernorm v2", one_block_a_row(x.shape[0], x.shape[1]), layernorm_kernel<Y>, y, x,
         g, b, eps);
}

}  // namespace v2

template <class Y>
void rmsnorm(Stream stream, DeviceView<Y, 2> y, DeviceView<const float, 2> x,
             DeviceView<const float, 1> g, double eps) {
  if (v2::norm_refuses(x.shape[1]).empty()) return v2::rmsnorm(stream, y, x, g, eps);
  v1::rmsnorm(stream, y, x, g, eps);
}

template <class Y>
void layernorm(Stream stream, DeviceView<Y, 2> y, DeviceView<const float, 2> x,
               DeviceView<const float, 1> g, DeviceView<const float, 1> b, double eps) {
  if (v2::norm_refuses(x.shape[1]).empty()) return v2::layernorm(stream, y, x, g, b, eps);
  v1::layernorm(stream, y, x, g, b, eps);
}

#define DSA_INSTANTIATE(space, Y)                                                     \
  template void space rmsnorm(Stream, DeviceView<Y, 2>, DeviceView<const float, 2>,   \
                              DeviceView<const float, 1>, double);                    \
  template void space layernorm(Stream, DeviceView<Y, 2>, DeviceView<const float, 2>, \
                                DeviceView<const float, 1>, DeviceView<const float, 1>, double);
DSA_INSTANTIATE(v1::, float)
DSA_INSTANTIATE(v1::, bf16)
DSA_INSTANTIATE(v2::, float)
DSA_INSTANTIATE(v2::, bf16)
DSA_INSTANTIATE(, float)
DSA_INSTANTIATE(, bf16)

}  // namespace dsa::cuda::DSA_PLACE
