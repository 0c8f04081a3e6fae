// optimized/cpu/ops/threads.hpp — a scope with so many OpenMP threads.
#pragma once

#include <omp.h>

namespace dsa::cpu {

/// And none within a thread: a scratch has a piece for each of the outer ones.
class Threads {
 public:
  explicit Threads(int n) : threads_(omp_get_max_threads()), levels_(omp_get_max_active_levels()) {
    omp_set_num_threads(n);
    omp_set_max_active_levels(1);
  }
  ~Threads() {
    omp_set_num_threads(threads_);
    omp_set_max_active_levels(levels_);
  }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int threads_, levels_;
};

}  // namespace dsa::cpu
