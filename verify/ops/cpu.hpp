// verify/ops/cpu.hpp — the CPU backend's kernels: every op, in every tier and dtype it has.
#pragma once

#include <vector>

#include "verify/op.hpp"

namespace dsa::verify {

std::vector<Kernel> cpu_kernels();

}  // namespace dsa::verify
