// verify/ops/cuda.hpp — the CUDA backend's kernels, every rung of every ladder.
//
// Every rung runs on the host (ran == host: optimized/cuda/host/). In a build with nvcc it is there
// once more, with ran == device, or ran == compiled where there is no device.
#pragma once

#include <vector>

#include "verify/op.hpp"

namespace dsa::verify {

std::vector<Kernel> cuda_kernels();

}  // namespace dsa::verify
