// optimized/cuda/linear_heads.cu — v1: one thread an output.
#include "optimized/cuda/launch.cuh"
#include "optimized/cuda/linear_heads.cuh"
#include "optimized/cuda/numbers.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

constexpr int threads = 128;

template <class X>
__global__ void heads_kernel(DeviceView<float, 3> y, DeviceView<const X, 3> x,
                             DeviceView<const X, 3> w) {
  const Index N = w.shape[0], F = w.shape[1], C = w.shape[2];
  const Index t = blockIdx.x / N, n = blockIdx.x % N;
  const Index f = blockIdx.y * Index(threads) + threadIdx.x;
  if (f >= F) return;
  float sum = 0;
  for (Index c = 0; c < C; ++c) sum += widen(w(n, f, c)) * widen(x(t, n, c));
  y(t, n, f) = sum;
}

}  // namespace

template <class X>
void linear_heads(Stream stream, DeviceView<float, 3> y, DeviceView<const X, 3> x,
                  DeviceView<const X, 3> w) {
  const Index T = x.shape[0], N = w.shape[0], F = w.shape[1], C = w.shape[2];
  expect_shape("y", y, {T, N, F});
  expect_shape("x", x, {T, N, x.shape[2]});
  require(x.shape[2] >= C, "a head of x has " + std::to_string(x.shape[2]) +
                               " channels, expected at least " + std::to_string(C));
  launch(stream, "linear_heads v1", {grid_of(T * N, ceil_divide(F, threads)), threads},
         heads_kernel<X>, y, x, w);
}

template void linear_heads(Stream, DeviceView<float, 3>, DeviceView<const float, 3>,
                           DeviceView<const float, 3>);
template void linear_heads(Stream, DeviceView<float, 3>, DeviceView<const bf16, 3>,
                           DeviceView<const bf16, 3>);

}  // namespace dsa::cuda::DSA_PLACE
