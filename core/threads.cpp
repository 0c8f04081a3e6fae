#include "core/threads.hpp"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace dsa {
namespace {

/// How long a thread looks for work, or for the end of somebody else's, before it sleeps.
constexpr std::chrono::microseconds patience{50};

thread_local int scope_threads = 0;  // of the innermost Threads; 0: there is none
thread_local Sharing scope_share = Sharing::worthwhile;
thread_local bool in_loop = false;

std::atomic<std::uint64_t> loops_shared{0};

int cores() {
  static const int count = [] {
    cpu_set_t mine;
    if (sched_getaffinity(0, sizeof mine, &mine) == 0) return std::max(1, CPU_COUNT(&mine));
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }();
  return count;
}

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

/// Waits until x is no longer `old`: looks at it for a while, then sleeps.
template <class T>
void wait_for_change(const std::atomic<T>& x, T old) {
  const auto end = std::chrono::steady_clock::now() + patience;
  do {
    for (int i = 0; i < 32; ++i) {
      if (x.load(std::memory_order_acquire) != old) return;
      pause_briefly();
    }
  } while (std::chrono::steady_clock::now() < end);
  x.wait(old, std::memory_order_acquire);
}

/// The helpers, and the one loop that they work at.
///
/// `open_` holds the number of the loop above how many of its pieces nobody has taken: to take a
/// piece is one exchange, which fails for a helper that comes late. What describes the loop is
/// written before `open_`, and not again until all pieces that were taken are done.
class Team {
 public:
  ~Team() {
    stop_.store(true);
    open_.fetch_add(next_loop);
    open_.notify_all();
    for (std::thread& helper : helpers_) helper.join();
  }

  /// False where another thread's loop is under way.
  bool run(Index pieces, detail::RunPiece* piece, void* context, int threads) {
    const std::unique_lock lock(one_loop_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    while (static_cast<int>(helpers_.size()) < threads - 1)
      helpers_.emplace_back([this, thread = static_cast<int>(helpers_.size()) + 1] {
        in_loop = true;
        help(thread);
      });
    run_.store(piece, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    pieces_.store(static_cast<std::uint64_t>(pieces), std::memory_order_relaxed);
    threads_.store(threads, std::memory_order_relaxed);
    left_.store(static_cast<std::uint64_t>(pieces), std::memory_order_relaxed);
    failed_piece_ = std::numeric_limits<std::uint64_t>::max();
    failure_ = nullptr;
    const std::uint64_t loop = open_.load(std::memory_order_relaxed) / next_loop + 1;
    open_.store(loop * next_loop + static_cast<std::uint64_t>(pieces), std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst) > 0) open_.notify_all();
    work(loop, 0);
    for (std::uint64_t left; (left = left_.load(std::memory_order_acquire)) != 0;)
      wait_for_change(left_, left);
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    return true;
  }

 private:
  static constexpr std::uint64_t next_loop = std::uint64_t{1} << 32;

  void help(int thread) {
    std::uint64_t seen = 0;
    while (!stop_.load()) {
      const std::uint64_t now = open_.load(std::memory_order_acquire);
      if (now / next_loop != seen) {
        seen = now / next_loop;
        if (thread < threads_.load(std::memory_order_relaxed)) work(seen, thread);
        continue;
      }
      rest(now);
    }
  }

  /// Until the next loop. A helper that looks is not counted asleep, and so costs nobody a call of
  /// the system.
  void rest(std::uint64_t now) {
    const auto end = std::chrono::steady_clock::now() + patience;
    do {
      for (int i = 0; i < 32; ++i) {
        const std::uint64_t open = open_.load(std::memory_order_acquire);
        if (open / next_loop != now / next_loop) return;
        pause_briefly();
      }
    } while (std::chrono::steady_clock::now() < end);
    asleep_.fetch_add(1, std::memory_order_seq_cst);
    const std::uint64_t open = open_.load(std::memory_order_seq_cst);
    if (open / next_loop == now / next_loop) open_.wait(open, std::memory_order_acquire);
    asleep_.fetch_sub(1, std::memory_order_seq_cst);
  }

  /// Takes pieces of the loop of this number for as long as there are any.
  void work(std::uint64_t loop, int thread) {
    std::uint64_t open = open_.load(std::memory_order_acquire);
    for (;;) {
      const std::uint64_t untaken = open % next_loop;
      if (open / next_loop != loop || untaken == 0) return;
      if (!open_.compare_exchange_weak(open, open - 1, std::memory_order_acq_rel)) continue;
      run_one(pieces_.load(std::memory_order_relaxed) - untaken, thread);
      if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1 && thread > 0) left_.notify_one();
      open = open_.load(std::memory_order_acquire);
    }
  }

  void run_one(std::uint64_t piece, int thread) {
    try {
      run_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed),
                                           static_cast<Index>(piece), thread);
    } catch (...) {
      const std::lock_guard lock(failing_);
      if (piece > failed_piece_) return;
      failed_piece_ = piece;
      failure_ = std::current_exception();
    }
  }

  std::mutex one_loop_, failing_;
  std::vector<std::thread> helpers_;
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> open_{0}, pieces_{0}, left_{0};
  std::atomic<detail::RunPiece*> run_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<int> threads_{0}, asleep_{0};
  std::uint64_t failed_piece_ = 0;
  std::exception_ptr failure_;
};

Team& team() {
  static Team one;
  return one;
}

}  // namespace

int threads() {
  if (in_loop) return 1;
  return scope_threads > 0 ? scope_threads : cores();
}

int threads_for(Index ns) {
  return ns >= (scope_share == Sharing::always ? 1 : shared_loop_ns) ? threads() : 1;
}

Threads::Threads(int n) : Threads(n, scope_share) {}
Threads::Threads(int n, Sharing share) : before_(scope_threads), share_before_(scope_share) {
  scope_threads = std::max(1, n);
  scope_share = share;
}
Threads::~Threads() {
  scope_threads = before_;
  scope_share = share_before_;
}

std::uint64_t shared_loops() { return loops_shared.load(); }

void detail::run_shared(Index pieces, RunPiece* run, void* context) {
  const int count = threads();
  struct Inside {
    Inside() { in_loop = true; }
    ~Inside() { in_loop = false; }
  };
  {
    const Inside inside;
    if (pieces < Index{1} << 32 && team().run(pieces, run, context, count)) {
      loops_shared.fetch_add(1);
      return;
    }
    for (Index piece = 0; piece < pieces; ++piece) run(context, piece, 0);
  }
}

}  // namespace dsa
