// optimized/cpu/ops/train_memory.hpp — memory of the ops that training needs: it grows to what the
// largest call asked for, and stays.
//
// Sizes of a micro-batch change from step to step, so these ops ask for themselves. An op leaves
// nothing of value in it. Contents begin as anything.
#pragma once

#include <omp.h>

#include <memory>

#include "optimized/cpu/ops/scratch.hpp"
#include "optimized/shared/memory.hpp"

namespace dsa::cpu {

class TrainMemory {
 public:
  /// A piece for every thread that a parallel region may have now. Invalidates earlier ones.
  Scratch threads(Index bytes_each) {
    const Index each = rounded_up(bytes_each, 64);
    return {threads_.at_least(each * omp_get_max_threads()), each};
  }
  /// One array for all threads. Invalidates the earlier one.
  std::byte* shared(Index bytes) { return shared_.at_least(bytes); }

 private:
  struct Piece {
    std::shared_ptr<std::byte> data;
    Index bytes = 0;

    std::byte* at_least(Index needed) {
      if (bytes < needed) {
        data.reset();
        data = allocate(needed, "a training step");
        bytes = needed;
      }
      return data.get();
    }
  };
  Piece threads_, shared_;
};

}  // namespace dsa::cpu
