// optimized/cuda/host/fiber.hpp — a function with a stack of its own, which can be left and
// resumed.
//
// The threads of an emulated block are fibers of one thread of the operating system: what they do
// between two barriers is done in a known order, and switching costs nanoseconds.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>
#include <functional>

namespace dsa::cuda::host {

class Fiber {
 public:
  /// `body` must not throw and must not return: it calls yield() when it has nothing to do.
  explicit Fiber(std::function<void()> body);
  ~Fiber();  // objects on an abandoned stack are not destroyed
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Runs the body until it yields.
  void resume();
  /// Called by the body: returns when the fiber is resumed.
  void yield();

 private:
  static void enter(unsigned low, unsigned high);

  std::function<void()> body_;
  std::byte* memory_ = nullptr;  // a page that may not be touched, then the stack
  bool started_ = false;
  ucontext_t start_{};
  jmp_buf inside_{}, outside_{};
};

}  // namespace dsa::cuda::host
