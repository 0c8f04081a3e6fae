// optimized/cuda/host/block.hpp — runs a grid of blocks on this processor, one block at a time.
//
// The threads of a block are fibers. A thread runs until it reaches a barrier or an operation of
// its warp (a shuffle, an mma), then the next one runs. Undefined behaviour of a device is an Error
// that names the kernel, the block and the thread:
//   - a barrier or a warp operation that some threads reach and others never do, or that threads
//     reach in different lines;
//   - a read of shared memory that nothing was written to, or whose copy is still under way;
//   - two threads, one of them writing, at one address of shared memory with nothing between
//     them that orders the two (shared_memory.hpp);
//   - a named barrier of another count (hopper.hpp), registers that nobody gives back, a
//     wgmma whose operands or registers are used while it is in flight (wgmma.hpp);
//   - an mbarrier whose phase nobody will complete, or that is used otherwise than it was
//     initialised for; the bytes of a bulk copy before its mbarrier was waited for (mbarrier.hpp);
//   - an access outside a tensor or a buffer (global_memory.hpp).
#pragma once

#include <functional>
#include <string>

#include "core/check.hpp"

namespace dsa::cuda::host {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr Dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
using dim3 = Dim3;

inline constexpr int warp_size = 32, warpgroup_size = 128;
/// Of a block, of sm_80 and of sm_90.
inline constexpr std::size_t shared_limit = std::size_t{163} << 10;
inline constexpr std::size_t hopper_shared_limit = std::size_t{227} << 10;

/// CUDA's variables, for the running thread.
inline thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

/// How a grid is launched besides its shape.
struct LaunchKind {
  bool hopper = false;  // for sm_90: more shared memory
  bool early = false;   // while the grid before it still runs: it has to wait for that one
};

/// Calls `body` once for every thread of every block, in order of the block's number.
void run_grid(const char* kernel, Dim3 grid, Dim3 block, std::size_t shared_bytes, LaunchKind kind,
              const std::function<void()>& body);

/// The number of the running thread in its block, and of its lane.
int thread_number();
inline int lane_number() { return thread_number() % warp_size; }

/// Throws an Error that begins with kernel, block and thread: the one that runs, or another.
[[noreturn]] void fail(const std::string& sentence, int thread = thread_number());

/// __syncthreads: waits for every thread of the block.
void block_barrier(int line);

/// Waits for every lane of the warp. The last to come calls `together` with what each of them
/// brought (null beyond the end of a partial warp); `orders` tells whether this orders their
/// accesses to shared memory.
void warp_operation(const char* what, int line, void* mine, void (*together)(void* const* lanes),
                    bool orders);

/// The same of the 128 threads of a warpgroup. Orders nothing.
void warpgroup_operation(const char* what, int line, void* mine,
                         void (*together)(void* const* threads));

/// What a thread can sleep on: what it is called, where it is, and how its state is told.
struct Awaited {
  const char* name = "";
  const void* at = nullptr;
  std::string (*text)(const void*) = nullptr;
};
/// Sleeps until somebody wakes those who sleep on the same.
void sleep_on(Awaited awaited, int line);
void wake(const void* at);

/// griddepcontrol.wait: until the grids before have ended. An Error of a grid that was launched
/// early if no thread of a block calls it.
void wait_for_earlier_grids();

}  // namespace dsa::cuda::host
