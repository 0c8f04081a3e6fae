// optimized/cuda/host/shared_memory.hpp — a block's shared memory, and who touched it when.
//
// Every byte has a shadow: its state, its last writer, and the threads that read or updated it
// since. A race is therefore found whatever order the emulator runs the threads in (order.hpp).
#pragma once

#include <cstddef>
#include <vector>

#include "optimized/cuda/host/order.hpp"

namespace dsa::cuda::host {

/// Fills the block's shared memory with 0xff (NaN in every format).
void poison_shared(std::size_t bytes);

/// `bytes` of shared memory at `offset`; an Error if the launch asked for less.
std::byte* shared_at(std::size_t offset, std::size_t bytes);
/// Its place in shared memory. Error: it lies outside the block's.
std::size_t shared_offset(const void* p, std::size_t bytes);

/// For the running thread: an Error if the access is outside shared memory, races, or reads what
/// was not written. Atomic accesses do not race with each other.
void reads_shared(const void* p, std::size_t bytes);
void writes_shared(const void* p, std::size_t bytes);
void updates_shared(const void* p, std::size_t bytes);
/// From here on the bytes are an mbarrier: nobody may access them as anything else.
void claims_shared(const void* p, std::size_t bytes);

/// For a wgmma that reads the bytes between two moments. At the first, they must be written, known,
/// and, if a thread wrote them, fenced. At the second, nobody may have touched them since `issued`;
/// from then on it is a read of the warp's wgmma.
void begins_wgmma_read(const Observer& wgmma, const void* p, std::size_t bytes);
void ends_wgmma_read(const Observer& wgmma, const void* p, std::size_t bytes, Time issued);

/// Before a bulk copy to the bytes: what threads wrote there must be fenced.
void expect_fenced(const void* p, std::size_t bytes);

/// From here on until land_copy(), which says by whom they are written then, nobody may touch the
/// bytes. `from` may be null: zeros.
void open_copy(const void* to, std::size_t bytes);
void land_copy(void* to, const void* from, std::size_t bytes, Mark by);

/// cp.async: the bytes arrive no sooner than the copying thread waits for them. `from` may be null.
void begin_copy(void* to, const void* from, std::size_t bytes);
void commit_copies();
/// Lands all but the last `pending` committed groups of the running thread.
void wait_for_copies(int pending);

struct Copy {
  std::byte* to;
  const std::byte* from;
  std::size_t bytes;
};
/// The copies of the running thread that have not landed. They are the caller's from here on.
std::vector<Copy> take_copies();

}  // namespace dsa::cuda::host
