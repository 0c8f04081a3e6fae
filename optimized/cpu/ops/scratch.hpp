// optimized/cpu/ops/scratch.hpp — memory that an op may use while it runs: a piece for every
// thread.
//
// Ops never allocate. Each says how many bytes a thread needs (OP_scratch(sizes)); the workspace
// of a pass holds the largest. An op leaves nothing of value in it.
#pragma once

#include <cstddef>

#include "core/tensor.hpp"

namespace dsa::cpu {

struct Scratch {
  std::byte* data = nullptr;   // 64-byte aligned
  Index bytes_per_thread = 0;  // a multiple of 64

  std::byte* of_thread(int thread) const { return data + thread * bytes_per_thread; }
};

}  // namespace dsa::cpu
