// core/threads.hpp — sets the number of OpenMP threads for a scope.
#pragma once

#include <omp.h>

namespace dsa {

/// Parallel regions of the scope have n threads. Regions inside a thread have one: a scratch has a
/// piece for each of the outer threads only.
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

}  // namespace dsa
