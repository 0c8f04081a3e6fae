// core/threads.hpp — loops over independent items, on a few threads.
//
// The calling thread takes items one after the other. A helper that is awake takes some of them,
// too; one that the system gives no core to is not waited for. So a loop ends late only where a
// helper is interrupted within an item. A helper looks for the next loop for some microseconds,
// then sleeps: it neither keeps a core from other programs nor is woken for every small loop.
//
// No item may depend on another, nor on the thread that runs it: then the result is the same, to
// the bit, for any number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/tensor.hpp"

namespace dsa {

/// How many threads a loop that starts here may use: those of the innermost `Threads` of this
/// thread, without one a thread for every core that the process may run on. 1 within a loop.
int threads();

/// Which loops use more than one thread: those of enough work, or all (to test that they may).
enum class Sharing { worthwhile, always };

/// A scope in which the loops of this thread use so many threads.
class Threads {
 public:
  explicit Threads(int n);  // shares what is shared around it
  Threads(int n, Sharing share);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
  Sharing share_before_;
};

/// threads(), or 1 where `ns` nanoseconds of work are not worth sharing.
int threads_for(Index ns);

/// Loops of this process that were offered to other threads.
std::uint64_t shared_loops();

/// A loop of less work than this stays on its thread: waking another may take as long.
inline constexpr Index shared_loop_ns = 50'000;

namespace detail {

/// Calls run(context, piece, thread) for every piece < pieces; rethrows what the first piece that
/// failed has thrown, once all have ended.
using RunPiece = void(void* context, Index piece, int thread);
void run_shared(Index pieces, RunPiece* run, void* context);

}  // namespace detail

/// Calls f(i), or f(i, thread), for every i < n, in any order and from several threads; `thread` <
/// threads() is nobody else's meanwhile. An exception of f is rethrown, that of the first piece.
/// `item_ns`: about how many nanoseconds one item takes. A loop of little work runs here, in order;
/// so does one of 0 ns, and then loops within its items may be shared.
template <class F>
void parallel_for(Index n, Index item_ns, F&& f) {
  const auto call = [&f](Index i, int thread) {
    if constexpr (std::is_invocable_v<F&, Index, int>)
      f(i, thread);
    else
      f(i);
  };
  const Index count = n < 2 ? 1 : threads_for(n * item_ns);
  if (count < 2) {
    for (Index i = 0; i < n; ++i) call(i, 0);
    return;
  }
  // Small items are taken several at a time: to take one costs about as much as 100 ns of work.
  struct Loop {
    decltype(call)& item;
    Index n, step;
  };
  constexpr Index piece_ns = 5'000;
  Loop loop{call, n, std::clamp<Index>(piece_ns / item_ns, 1, (n + count - 1) / count)};
  detail::run_shared((n + loop.step - 1) / loop.step,
                     [](void* context, Index piece, int thread) {
                       const Loop& mine = *static_cast<const Loop*>(context);
                       const Index end = std::min(mine.n, (piece + 1) * mine.step);
                       for (Index i = piece * mine.step; i < end; ++i) mine.item(i, thread);
                     },
                     &loop);
}

}  // namespace dsa
