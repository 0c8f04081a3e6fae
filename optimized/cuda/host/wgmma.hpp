// optimized/cuda/host/wgmma.hpp — products of a warpgroup on tensor cores (wgmma), on the host.
//
// PTX ISA, "wgmma.mma_async": d (64 x n) = a (64 x 16) b (16 x n) [+ d], sums in fp32. A wgmma
// reads shared memory and registers at any time between its issue and the wait for its group. So it
// is computed at the wait, and it is an Error
//   - if a byte of an operand was not written, or is not known, or was written by a thread without
//     a proxy fence, when the wgmma is issued;
//   - if somebody writes to an operand before the wait;
//   - if a register in flight is accessed, or one that was accessed since the last wgmma_fence is
//     given to a wgmma;
//   - if a descriptor finds an element elsewhere than the panels have it: a wrong stride, or a
//   wrong
//     transposition bit;
//   - if the block ends before the wait.
#pragma once

#include <cstdint>

#include "optimized/cuda/host/shared_array.hpp"
#include "optimized/cuda/host/warp.hpp"

namespace dsa::cuda::host {

/// Who uses an array of registers, and since which wgmma_fence of its thread.
struct RegisterUse {
  int written_by = 0, read_by = 0;  // wgmmas in flight
  int fence = -1;                   // before which fence the thread last accessed them
  int issue_line = 0;

  void access(bool writes);
};

/// `count` registers of a thread that wgmma may use.
template <class T, int count>
class Registers {
 public:
  Registers() { use_.access(true); }
  Registers(const Registers&) = delete;
  Registers& operator=(const Registers&) = delete;

  T& operator[](int i) {
    check_subscript(i, count, 0);
    use_.access(true);
    return r_[i];
  }
  T operator[](int i) const {
    check_subscript(i, count, 0);
    use_.access(false);
    return r_[i];
  }
  /// What was in flight is not any more: accesses may follow.
  void hold() const { use_.access(false); }
  T* in_flight() { return r_; }
  RegisterUse& use() const { return use_; }

 private:
  T r_[count] = {};
  mutable RegisterUse use_;
};

/// An operand in panels of shared memory (device/wgmma.cuh), and where in them it begins.
struct OperandPlace {
  const unsigned char* panels = nullptr;
  std::int64_t panel_rows = 0, bytes = 0;
  std::int64_t row = 0, channel = 0;
  bool transposed = false;  // MN-major
};

/// What an instruction is told.
struct Wgmma {
  bool f16 = false;  // else bf16
  int n = 0;
  float* d = nullptr;
  RegisterUse* d_use = nullptr;
  const std::uint32_t* a = nullptr;  // 4 registers, or null: a_place
  RegisterUse* a_use = nullptr;
  std::uint64_t a_descriptor = 0, b_descriptor = 0;
  bool a_transposed = false, b_transposed = false;
  OperandPlace a_place{}, b_place{};
  bool accumulate = false;
  int line = 0;
};

void issue_wgmma(Wgmma);
void count_wgmma_fence();
void wait_for_wgmma(int pending, int line);

/// Between accesses of these registers and the wgmmas that follow.
template <class... R>
void wgmma_fence(R&...) {
  count_wgmma_fence();
}
/// Makes a group of what was issued.
void wgmma_commit(int line = __builtin_LINE());
/// Until at most `pending` groups are in flight; these registers are in none of them.
template <int pending>
void wgmma_wait(auto&... registers) {
  wait_for_wgmma(pending, __builtin_LINE());
  (registers.hold(), ...);
}

void begin_wgmma(std::size_t threads);
void end_wgmma();

}  // namespace dsa::cuda::host
