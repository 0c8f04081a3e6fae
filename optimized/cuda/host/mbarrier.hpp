// optimized/cuda/host/mbarrier.hpp — mbarriers, and the copies that report to them, on the host.
//
// An mbarrier's phase is complete when as many have arrived as it was initialised for and as many
// bytes have landed as they expect. What a thread did before it arrived happens before what
// another does after it waited for that phase, and nothing else is ordered. Bytes land when
// somebody waits and nothing else is missing: no sooner. What PTX leaves undefined, or to luck, is
// an Error:
//   - a phase that nobody will complete, while somebody waits for it or bytes are under way;
//   - bytes beyond those that are expected;
//   - an arrival, or a copy, of somebody who has not seen that the phase before is complete: it may
//     count for that one. So does an arrival beyond the count;
//   - an mbarrier that is used before its initialisation is known, initialised a second time, or
//     accessed as anything else; a copy for it before fence_mbarrier_init.
//   - a bulk copy to bytes that a thread wrote, with no proxy fence (fence_async_proxy) between.
// An arrival may also wait for the thread's cp.async copies. Their bytes land together with the
// phase: ordinary writes, which the arrival makes known, but nothing else that the thread did.
#pragma once

#include "optimized/cuda/host/shared_array.hpp"

namespace dsa::cuda::host {

/// Lives in shared memory, and is known by where it lies. PTX ISA, "mbarrier".
struct Mbarrier {
  std::uint64_t state;

  /// For so many arrivals a phase, up to 2^20 - 1. One thread's work, before a fence and a barrier.
  void init(int count);
  void arrive();
  /// Arrives, and lets the phase expect so many bytes of copies besides.
  void arrive_expect_bytes(int bytes);
  /// cp.async.mbarrier.arrive.noinc: arrives when all copies by copy_async_* that this thread has
  /// begun are there. The count of init() includes it. The thread learns of them by waiting.
  void arrive_when_copied();
  /// Waits for the phase of this parity to be complete: the first is phase 0. The phase before it
  /// counts as complete.
  void wait(int parity, int line = __builtin_LINE());
};

template <>
struct Shared<Mbarrier> {
  Mbarrier* data = nullptr;
  std::int64_t n = 0;

  Mbarrier& operator[](std::int64_t i) const {
    check_subscript(i, n, 0);
    return data[i];
  }
};

/// Lets copies see the mbarriers that this thread initialised.
void fence_mbarrier_init();

/// The source of a copy in boxes: a row-major matrix, boxes of 128 bytes by `box_rows` rows. Made
/// by tensor_map() (async.cuh).
struct TensorMap {
  const void* data;
  std::int64_t rows, columns, element_bytes;
  std::int64_t box_rows;
};

/// cp.async.bulk: `bytes` bytes of global memory. Both addresses and `bytes` are multiples of 16.
void bulk_copy(void* to, const void* from, std::int64_t bytes, Mbarrier& mbarrier);

/// cp.async.bulk.tensor: the box at `column` and `row`, zeros where it lies outside the matrix, as
/// a Tile of 128 bytes a row (tiles.cuh). It counts as all its bytes. `to` is a multiple of 1024,
/// where the permutation begins.
void tensor_copy(void* to, const TensorMap& map, std::int64_t column, std::int64_t row,
                 Mbarrier& mbarrier);

/// Of a block: none yet; and an Error if somebody's bytes are under way at its end.
void begin_mbarriers();
void end_mbarriers();

/// The address of the mbarrier, and what it still waits for.
std::string mbarrier_text(const void* mbarrier);

}  // namespace dsa::cuda::host
