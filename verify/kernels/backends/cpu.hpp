// verify/kernels/backends/cpu.hpp — the CPU backend's kernels: every op, in every tier and dtype it
// has.
#pragma once

#include <vector>

#include "verify/kernels/op.hpp"

namespace dsa::verify::kernels {

std::vector<Kernel> cpu_kernels();

}  // namespace dsa::verify::kernels
