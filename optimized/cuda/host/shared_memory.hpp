// optimized/cuda/host/shared_memory.hpp — a block's shared memory, and who touched it when.
//
// Every byte has a shadow: whether it holds anything, its last writer and its readers since the
// last barrier. A race is therefore found whatever order the emulator runs the threads in.
#pragma once

#include <cstddef>

namespace dsa::cuda::host {

/// Fills the block's shared memory with 0xff (NaN in every format) and forgets who touched it.
void poison_shared(std::size_t bytes);

/// `bytes` of shared memory at `offset`; an Error if the launch asked for less.
std::byte* shared_at(std::size_t offset, std::size_t bytes);

/// For the running thread: an Error if the access is outside shared memory, races, or reads what
/// was not written. Atomic accesses do not race with each other.
void reads_shared(const void* p, std::size_t bytes);
void writes_shared(const void* p, std::size_t bytes);
void updates_shared(const void* p, std::size_t bytes);

/// cp.async: the bytes arrive no sooner than the copying thread waits for them, and until then
/// cannot be read. `from` may be null: zeros.
void begin_copy(void* to, const void* from, std::size_t bytes);
void commit_copies();
/// Lands all but the last `pending` committed groups of the running thread.
void wait_for_copies(int pending);

}  // namespace dsa::cuda::host
