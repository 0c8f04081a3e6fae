// optimized/cuda/host/hopper.hpp — named barriers, registers that move between warpgroups, the
// proxy fence, and early launch, on the host.
//
// A named barrier is complete when as many threads have come as all of them say. What a thread did
// before it came happens before what another does after it waited there; who only arrives learns
// nothing. Errors: counts that differ or are no multiple of 32, a thread that comes twice, and a
// barrier that lacks threads at the end of the block.
//
// A block begins with as many registers a thread as 65,536 allow. A warp that grows waits until
// others have given back enough.
#pragma once

#include "optimized/cuda/host/shared_memory.hpp"
#include "optimized/cuda/host/words.hpp"

namespace dsa::cuda::host {

/// bar.sync and bar.arrive, ids 1 to 15: of `threads` threads, all lanes of their warps.
void named_barrier_wait(int id, int threads, int line = __builtin_LINE());
void named_barrier_arrive(int id, int threads);

/// setmaxnreg: every warp of a warpgroup calls it. A multiple of 8 between 24 and 256.
void set_registers(int count, bool grows, int line);
template <int count>
void grow_registers(int line = __builtin_LINE()) {
  set_registers(count, true, line);
}
template <int count>
void shrink_registers(int line = __builtin_LINE()) {
  set_registers(count, false, line);
}

/// fence.proxy.async: wgmma and bulk copies that come after it see what this thread knows of.
inline void fence_async_proxy() { fence_known_accesses(); }

/// griddepcontrol.launch_dependents. Grids run one after the other here: nothing to do.
inline void launch_dependents() {}

/// Hints: nothing to do.
inline void prefetch_l2(const void*) {}
struct CachePolicy {};
inline CachePolicy kept_in_l2() { return {}; }

/// Of a block: no barrier is in use; and an Error if one is at its end.
void begin_hopper(std::size_t threads);
void end_hopper();

}  // namespace dsa::cuda::host
