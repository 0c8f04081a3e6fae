// optimized/cpu/ops/train_memory.hpp — memory of the ops that training needs: it grows to what the
// largest call asked for, and stays.
//
// Sizes of a micro-batch change from step to step, so these ops ask for themselves. An op leaves
// nothing of value in it. Contents begin as anything.
#pragma once

#include <omp.h>

#include <vector>

#include "optimized/cpu/ops/scratch.hpp"

namespace dsa::cpu {

class TrainMemory {
 public:
  /// A piece for every thread that a parallel region may have now. Invalidates earlier ones.
  Scratch threads(Index bytes_each) {
    const Index each = (bytes_each + 63) / 64 * 64;
    return {at_least(threads_, each * omp_get_max_threads()), each};
  }
  /// One array for all threads. Invalidates the earlier one.
  float* shared(Index floats) { return reinterpret_cast<float*>(at_least(shared_, 4 * floats)); }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  static std::byte* at_least(std::vector<Line>& lines, Index bytes) {
    const auto n = static_cast<std::size_t>((bytes + 63) / 64);
    if (lines.size() < n) lines = std::vector<Line>(n);
    return lines.empty() ? nullptr : lines.data()->bytes;
  }

  std::vector<Line> threads_, shared_;
};

}  // namespace dsa::cpu
