// One rung, one block a token: a copy of rows, every byte read and written once, by neighbouring
// threads. No instruction of a newer architecture makes it fewer bytes.
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/numbers.cuh"
#include "optimized/cuda/ops/embed.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

template <class X>
__global__ void embed_kernel(DeviceView<X, 2> y, DeviceView<const X, 2> table,
                             DeviceView<const std::int32_t, 1> tokens) {
  const Index t = blockIdx.x, token = tokens(t);
  const bool known = 0 <= token && token < table.shape[0];
  for (Index c = threadIdx.x; c < table.shape[1]; c += blockDim.x)
    y(t, c) = known ? table(token, c) : narrow<X>(NAN);
}

}  // namespace

template <class X>
void embed(Stream stream, DeviceView<X, 2> y, DeviceView<const X, 2> table,
           DeviceView<const std::int32_t, 1> tokens) {
  const Index T = tokens.shape[0];
  expect_shape("y", y, {T, table.shape[1]});
  launch(stream, "embed v1", {grid_of(T), 128}, embed_kernel<X>, y, table, tokens);
}

template void embed(Stream, DeviceView<float, 2>, DeviceView<const float, 2>,
                    DeviceView<const std::int32_t, 1>);
template void embed(Stream, DeviceView<bf16, 2>, DeviceView<const bf16, 2>,
                    DeviceView<const std::int32_t, 1>);

}  // namespace dsa::cuda::DSA_PLACE
