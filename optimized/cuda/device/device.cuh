// optimized/cuda/device/device.cuh — whether the kernels of this place can run.
#pragma once

#include <string>

#include "optimized/cuda/device/place.cuh"

namespace dsa::cuda::DSA_PLACE {

/// what_is_missing() of the current device (device.hpp): the one answer that the suite, the engine
/// and the benchmark go by. Empty on the host. Takes no memory and throws nothing.
std::string what_is_missing();

/// Whether rungs v3 can run: an H100 or H200, and the build has code for 90a. On the host: yes.
bool has_hopper_code();

}  // namespace dsa::cuda::DSA_PLACE
