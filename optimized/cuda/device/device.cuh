// optimized/cuda/device/device.cuh — whether the kernels of this place can run.
#pragma once

#include <string>

#include "optimized/cuda/device/place.cuh"

namespace dsa::cuda::DSA_PLACE {

/// what_is_missing() of the current device (device.hpp): the one answer that the suite, the engine
/// and the benchmark go by. Empty on the host. Takes no memory and throws nothing.
std::string what_is_missing();

}  // namespace dsa::cuda::DSA_PLACE
