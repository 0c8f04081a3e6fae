// swiglu has one version: it reads eight bytes and writes two or four for a handful of operations,
// and the threads of a warp read and write neighbours. There is nothing to save but bytes.
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/numbers.cuh"
#include "optimized/cuda/device/silu.cuh"
#include "optimized/cuda/ops/swiglu.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

constexpr int threads = 128;

template <class H>
__global__ void swiglu_kernel(DeviceView<H, 2> h, DeviceView<const float, 2> gate_up) {
  const Index F = h.shape[1], t = blockIdx.x;
  const Index f = blockIdx.y * Index(threads) + threadIdx.x;
  if (f < F) h(t, f) = narrow<H>(silu_times(gate_up(t, f), gate_up(t, F + f)));
}

}  // namespace

template <class H>
void swiglu(Stream stream, DeviceView<H, 2> h, DeviceView<const float, 2> gate_up) {
  const Index T = h.shape[0], F = h.shape[1];
  expect_shape("gate_up", gate_up, {T, 2 * F});
  launch(stream, "swiglu v1", {grid_of(T, ceil_divide(F, threads)), threads}, swiglu_kernel<H>, h,
         gate_up);
}

template void swiglu(Stream, DeviceView<float, 2>, DeviceView<const float, 2>);
template void swiglu(Stream, DeviceView<bf16, 2>, DeviceView<const float, 2>);

}  // namespace dsa::cuda::DSA_PLACE
