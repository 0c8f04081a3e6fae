// verify/kernels/backends/cuda/kernels.hpp — the rungs of both places. The sources of this
// directory are compiled once for each, as the kernels are (optimized/cuda/device/place.cuh).
#pragma once

#include "verify/kernels/op.hpp"

namespace dsa::verify::kernels {

namespace host {
std::vector<Kernel> kernels();
}
namespace device {
std::vector<Kernel> kernels();
}

}  // namespace dsa::verify::kernels
