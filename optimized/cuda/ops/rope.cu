// One rung, one thread a pair of channels: six operations for 16 bytes read and written, and a
// table that all heads of a token share. The threads of a warp touch neighbours in either layout;
// in the interleaved one a warp's two accesses lie in the same lines. There is nothing to save but
// bytes.
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/ops/rope.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

__global__ void rope_kernel(DeviceView<float, 3> x, DeviceView<const float, 2> cos,
                            DeviceView<const float, 2> sin, Index first, bool interleaved) {
  const Index heads = x.shape[1], half = cos.shape[1], t = blockIdx.x;
  const Index pair = blockIdx.y * Index(blockDim.x) + threadIdx.x;
  if (pair >= heads * half) return;
  const Index h = pair / half, i = pair % half;
  float& a = x(t, h, first + (interleaved ? 2 * i : i));
  float& b = x(t, h, first + (interleaved ? 2 * i + 1 : i + half));
  const float a0 = a, b0 = b;
  a = a0 * cos(t, i) - b0 * sin(t, i);
  b = b0 * cos(t, i) + a0 * sin(t, i);
}

}  // namespace

void rope(Stream stream, DeviceView<float, 3> x, DeviceView<const float, 2> cos,
          DeviceView<const float, 2> sin, Index first, RopeLayout layout) {
  const Index T = x.shape[0], heads = x.shape[1], half = cos.shape[1];
  expect_shape("cos", cos, {T, half});
  expect_shape("sin", sin, {T, half});
  require(first >= 0 && first + 2 * half <= x.shape[2],
          "channels [" + std::to_string(first) + ", " + std::to_string(first + 2 * half) +
              ") of a head are to be turned, it has " + std::to_string(x.shape[2]));
  constexpr int threads = 128;
  launch(stream, "rope v1", {grid_of(T, ceil_divide(heads * half, threads)), threads}, rope_kernel,
         x, cos, sin, first, layout == RopeLayout::interleaved);
}

}  // namespace dsa::cuda::DSA_PLACE
