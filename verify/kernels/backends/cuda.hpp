// verify/kernels/backends/cuda.hpp — the CUDA backend's kernels, every rung of every ladder.
//
// Every rung runs on the host (ran == host: optimized/cuda/host/). In a build with nvcc it is there
// once more, with ran == device, or ran == compiled where there is no device.
#pragma once

#include <vector>

#include "verify/kernels/op.hpp"

namespace dsa::verify::kernels {

std::vector<Kernel> cuda_kernels();

}  // namespace dsa::verify::kernels
