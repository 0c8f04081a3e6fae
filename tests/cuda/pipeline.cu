// The device's half of pipeline.cuh and hopper_pipeline.cuh: compiled, so that ptxas has seen it.
// It is not called, because the tests run where there is no device.
#include "tests/cuda/hopper_pipeline.cuh"
#include "tests/cuda/pipeline.cuh"

namespace dsa::cuda::device {

void compiled_kernels(Stream stream, DeviceView<float, 2> y, DeviceView<float, 1> sums,
                      DeviceView<const bf16, 2> x) {
  pipeline(stream, y, x, x, Mistake::none);
  sum_of_rows(stream, sums, y);
  hopper::pipeline(stream, y, x, x, hopper::Mistake::none);
}

}  // namespace dsa::cuda::device
