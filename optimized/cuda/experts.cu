// optimized/cuda/experts.cu — v1: one thread a hidden number, then one thread an output.
#include "optimized/cuda/experts.cuh"
#include "optimized/cuda/launch.cuh"
#include "optimized/cuda/numbers.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

constexpr int threads = 128;

__device__ float silu_times(float gate, float up) { return gate / (1 + expf(-gate)) * up; }

template <class H>
__global__ void swiglu_kernel(DeviceView<H, 2> h, DeviceView<const float, 2> gate_up) {
  const Index F = h.shape[1], t = blockIdx.x;
  const Index f = blockIdx.y * Index(threads) + threadIdx.x;
  if (f < F) h(t, f) = narrow<H>(silu_times(gate_up(t, f), gate_up(t, F + f)));
}

template <class X>
__device__ float dot(DeviceView<const X, 1> a, DeviceView<const X, 1> b) {
  float sum = 0;
  for (Index i = 0; i < a.shape[0]; ++i) sum += widen(a(i)) * widen(b(i));
  return sum;
}

template <class X>
__global__ void hidden_kernel(DeviceView<X, 3> hidden, DeviceView<const X, 2> x,
                              DeviceView<const X, 3> gate_up,
                              DeviceView<const std::int32_t, 2> chosen) {
  const Index k = chosen.shape[1], F = hidden.shape[2];
  const Index t = blockIdx.x / k, i = blockIdx.x % k, e = chosen(t, i);
  const Index f = blockIdx.y * Index(threads) + threadIdx.x;
  if (f >= F || e < 0 || e >= gate_up.shape[0]) return;
  const float gate = dot(x[t], gate_up[e][f]), up = dot(x[t], gate_up[e][F + f]);
  hidden(t, i, f) = narrow<X>(silu_times(gate, up));
}

template <class X>
__global__ void sum_kernel(DeviceView<float, 2> y, DeviceView<const X, 3> hidden,
                           DeviceView<const X, 3> down, DeviceView<const std::int32_t, 2> chosen,
                           DeviceView<const float, 2> weights) {
  const Index t = blockIdx.x, c = blockIdx.y * Index(threads) + threadIdx.x;
  if (c >= y.shape[1]) return;
  float sum = y(t, c);
  for (Index i = 0; i < chosen.shape[1]; ++i) {
    const Index e = chosen(t, i);
    if (e == -1) continue;
    const bool known = 0 <= e && e < down.shape[0];
    sum += known ? weights(t, i) * dot(hidden[t][i], down[e][c]) : NAN;
  }
  y(t, c) = sum;
}

}  // namespace

template <class H>
void swiglu(Stream stream, DeviceView<H, 2> h, DeviceView<const float, 2> gate_up) {
  const Index T = h.shape[0], F = h.shape[1];
  expect_shape("gate_up", gate_up, {T, 2 * F});
  launch(stream, "swiglu v1", {grid_of(T, ceil_divide(F, threads)), threads}, swiglu_kernel<H>, h,
         gate_up);
}

namespace v1 {

template <class X>
void experts(Stream stream, DeviceView<float, 2> y, DeviceView<const X, 2> x,
             DeviceView<const X, 3> gate_up, DeviceView<const X, 3> down,
             DeviceView<const std::int32_t, 2> chosen, DeviceView<const float, 2> weights,
             DeviceView<X, 3> hidden) {
  const Index T = x.shape[0], C = x.shape[1], E = down.shape[0], F = down.shape[2];
  const Index k = chosen.shape[1];
  expect_shape("y", y, {T, C});
  expect_shape("gate_up", gate_up, {E, 2 * F, C});
  expect_shape("down", down, {E, C, F});
  expect_shape("chosen", chosen, {T, k});
  expect_shape("weights", weights, {T, k});
  expect_shape("hidden", hidden, {T, k, F});
  launch(stream, "experts v1, hidden", {grid_of(T * k, ceil_divide(F, threads)), threads},
         hidden_kernel<X>, hidden, x, gate_up, chosen);
  launch(stream, "experts v1, sum", {grid_of(T, ceil_divide(C, threads)), threads}, sum_kernel<X>,
         y, hidden, down, chosen, weights);
}

}  // namespace v1

template <class X>
Index experts_workspace(Index, Index, Index, Index, Index) {
  return 0;
}

template <class X>
void experts(Stream stream, DeviceView<float, 2> y, DeviceView<const X, 2> x,
             DeviceView<const X, 3> gate_up, DeviceView<const X, 3> down,
             DeviceView<const std::int32_t, 2> chosen, DeviceView<const float, 2> weights,
             DeviceView<X, 3> hidden, DeviceView<std::uint32_t, 1>) {
  v1::experts(stream, y, x, gate_up, down, chosen, weights, hidden);
}

#define DSA_INSTANTIATE(X)                                                                 \
  template void swiglu(Stream, DeviceView<X, 2>, DeviceView<const float, 2>);              \
  template void v1::experts(Stream, DeviceView<float, 2>, DeviceView<const X, 2>,          \
                            DeviceView<const X, 3>, DeviceView<const X, 3>,                \
                            DeviceView<const std::int32_t, 2>, DeviceView<const float, 2>, \
                            DeviceView<X, 3>);                                             \
  template Index experts_workspace<X>(Index, Index, Index, Index, Index);                  \
  template void experts(Stream, DeviceView<float, 2>, DeviceView<const X, 2>,              \
                        DeviceView<const X, 3>, DeviceView<const X, 3>,                    \
                        DeviceView<const std::int32_t, 2>, DeviceView<const float, 2>,     \
                        DeviceView<X, 3>, DeviceView<std::uint32_t, 1>);
DSA_INSTANTIATE(float)
DSA_INSTANTIATE(bf16)

}  // namespace dsa::cuda::DSA_PLACE
