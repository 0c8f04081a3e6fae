// A fiber is entered once through its ucontext and from then on by longjmp, which, unlike
// swapcontext, does not ask the kernel to change the signal mask. The fortified longjmp of glibc
// takes a jump to another stack for a mistake.
#undef _FORTIFY_SOURCE
#include "optimized/cuda/host/fiber.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "core/check.hpp"

namespace dsa::cuda::host {
namespace {

constexpr std::size_t stack_bytes = std::size_t{128} << 10;

std::size_t page_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)) {
  const std::size_t bytes = page_bytes() + stack_bytes;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  require(memory != MAP_FAILED, "no memory for the stack of an emulated CUDA thread");
  memory_ = static_cast<std::byte*>(memory);
  mprotect(memory_, page_bytes(), PROT_NONE);
  getcontext(&start_);
  start_.uc_stack.ss_sp = memory_ + page_bytes();
  start_.uc_stack.ss_size = stack_bytes;
  const auto self = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(this));
  makecontext(&start_, reinterpret_cast<void (*)()>(&Fiber::enter), 2, static_cast<unsigned>(self),
              static_cast<unsigned>(self >> 32));
}

Fiber::~Fiber() { munmap(memory_, page_bytes() + stack_bytes); }

void Fiber::enter(unsigned low, unsigned high) {
  const std::uint64_t self = std::uint64_t{high} << 32 | low;
  reinterpret_cast<Fiber*>(static_cast<std::uintptr_t>(self))->body_();
}

void Fiber::resume() {
  if (_setjmp(outside_) != 0) return;
  if (started_) _longjmp(inside_, 1);
  started_ = true;
  setcontext(&start_);
}

void Fiber::yield() {
  if (_setjmp(inside_) == 0) _longjmp(outside_, 1);
}

}  // namespace dsa::cuda::host
