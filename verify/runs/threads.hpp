// verify/runs/threads.hpp — a scope that runs with so many threads.
#pragma once

#include <omp.h>

namespace dsa::verify {

class Threads {
 public:
  explicit Threads(int n) : before_(omp_get_max_threads()) { omp_set_num_threads(n); }
  ~Threads() { omp_set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

}  // namespace dsa::verify
