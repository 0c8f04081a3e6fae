// experiments/bench/cuda/roof.cuh — what the device can do at most, measured beside the kernels.
#pragma once

#include "experiments/bench/cuda/timer.cuh"

namespace dsa::bench::DSA_PLACE {

struct Roof {
  double bytes = 0;  // read from memory a second
  double flops = 0;  // of bf16 products a second, summed in fp32, by cuBLAS
};

/// Reading 4 GiB; multiplying two matrices of 8192 x 8192. (On the host: of next to nothing.)
Roof measure_roof(Timer&);

}  // namespace dsa::bench::DSA_PLACE
