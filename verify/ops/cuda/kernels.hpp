// verify/ops/cuda/kernels.hpp — the rungs of both places. The sources of this directory are
// compiled once for each, as the kernels are (optimized/cuda/place.cuh).
#pragma once

#include "verify/op.hpp"

namespace dsa::verify {

namespace host {
std::vector<Kernel> kernels();
}
namespace device {
std::vector<Kernel> kernels();
}

}  // namespace dsa::verify
