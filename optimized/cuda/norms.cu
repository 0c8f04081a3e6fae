// optimized/cuda/norms.cu — v1: one block a row; sums are trees of fixed shape over its threads.
#include "optimized/cuda/launch.cuh"
#include "optimized/cuda/norms.cuh"
#include "optimized/cuda/numbers.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

constexpr int threads = 256;

__device__ float sum_of(DeviceView<const float, 1> x, Shared<float> scratch) {
  float sum = 0;
  for (Index c = threadIdx.x; c < x.shape[0]; c += blockDim.x) sum += x(c);
  return across_block(sum, Sum{}, scratch);
}

/// The reciprocal of sqrt( mean (x - mean)^2 + eps ).
__device__ float reciprocal_root(DeviceView<const float, 1> x, float mean, double eps,
                                 Shared<float> scratch) {
  float squares = 0;
  for (Index c = threadIdx.x; c < x.shape[0]; c += blockDim.x)
    squares += (x(c) - mean) * (x(c) - mean);
  squares = across_block(squares, Sum{}, scratch);
  return float(1 / sqrt(double(squares) / double(x.shape[0]) + eps));
}

template <class Y>
__global__ void rmsnorm_kernel(DeviceView<Y, 2> y, DeviceView<const float, 2> x,
                               DeviceView<const float, 1> g, double eps) {
  const Index t = blockIdx.x, C = x.shape[1];
  SharedMemory memory;
  const Shared<float> scratch = memory.take<float>(threads / warp_size);
  const float r = reciprocal_root(x[t], 0, eps, scratch);
  for (Index c = threadIdx.x; c < C; c += blockDim.x) y(t, c) = narrow<Y>(g(c) * (x(t, c) * r));
}

template <class Y>
__global__ void layernorm_kernel(DeviceView<Y, 2> y, DeviceView<const float, 2> x,
                                 DeviceView<const float, 1> g, DeviceView<const float, 1> b,
                                 double eps) {
  const Index t = blockIdx.x, C = x.shape[1];
  SharedMemory memory;
  const Shared<float> scratch = memory.take<float>(threads / warp_size);
  const float mean = sum_of(x[t], scratch) / float(C);
  const float r = reciprocal_root(x[t], mean, eps, scratch);
  for (Index c = threadIdx.x; c < C; c += blockDim.x)
    y(t, c) = narrow<Y>(g(c) * ((x(t, c) - mean) * r) + b(c));
}

LaunchShape one_block_a_row(Index rows) {
  return {grid_of(rows), threads, shared_room<float>(threads / warp_size)};
}

}  // namespace

template <class Y>
void rmsnorm(Stream stream, DeviceView<Y, 2> y, DeviceView<const float, 2> x,
             DeviceView<const float, 1> g, double eps) {
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("y", y, {T, C});
  expect_shape("g", g, {C});
  launch(stream, "rmsnorm v1", one_block_a_row(T), rmsnorm_kernel<Y>, y, x, g, eps);
}

template <class Y>
void layernorm(Stream stream, DeviceView<Y, 2> y, DeviceView<const float, 2> x,
               DeviceView<const float, 1> g, DeviceView<const float, 1> b, double eps) {
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("y", y, {T, C});
  expect_shape("g", g, {C});
  expect_shape("b", b, {C});
  launch(stream, "layernorm v1", one_block_a_row(T), layernorm_kernel<Y>, y, x, g, b, eps);
}

#define DSA_INSTANTIATE(Y)                                                      \
  template void rmsnorm(Stream, DeviceView<Y, 2>, DeviceView<const float, 2>,   \
                        DeviceView<const float, 1>, double);                    \
  template void layernorm(Stream, DeviceView<Y, 2>, DeviceView<const float, 2>, \
                          DeviceView<const float, 1>, DeviceView<const float, 1>, double);
DSA_INSTANTIATE(float)
DSA_INSTANTIATE(bf16)

}  // namespace dsa::cuda::DSA_PLACE
