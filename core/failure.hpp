// core/failure.hpp — carries the first exception out of a parallel region.
#pragma once

#include <exception>
#include <mutex>

namespace dsa {

class Failure {
 public:
  /// Runs f; an exception is kept (the first wins) instead of leaving the parallel loop.
  template <class F>
  void guard(F&& f) {
    try {
      f();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!first_) first_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

}  // namespace dsa
