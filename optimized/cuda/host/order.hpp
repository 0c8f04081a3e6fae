// optimized/cuda/host/order.hpp — what happened before what among the threads of a block.
//
// These are vector clocks. Every event that orders accesses advances the time. A mark is an access:
// the actor and the time. A thread knows, for each other thread, up to which time its accesses
// happened before its own: for all threads up to the last __syncthreads, for the lanes of its warp
// up to the last __syncwarp, and for single threads as far as an mbarrier gave it. Only the part
// that comes from mbarriers is stored as a vector.
//
// A thread's ordinary accesses and those of the asynchronous proxy (wgmma, bulk copies) are ordered
// only if a proxy fence lies between them. A thread therefore also knows which accesses somebody
// fenced: the fence's author knew of them, and the thread knows of the fence.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace dsa::cuda::host {

/// An accessor of shared memory: a thread, the wgmma of a warp, or an mbarrier. In an mbarrier's
/// name bulk copies land by its first number, copies by cp.async by its second.
using Actor = unsigned;
inline constexpr Actor first_wgmma = 1024, first_mbarrier = first_wgmma + 32;
/// Whether the accessor belongs to the asynchronous proxy.
inline bool is_asynchronous(Actor actor) {
  return actor >= first_wgmma && (actor < first_mbarrier || (actor - first_mbarrier) % 2 == 0);
}

using Time = std::uint64_t;

/// One access in one word; or several, where the actor stands for a set of marks and the time is
/// that of the latest. The mark of time 0 is known to everybody.
struct Mark {
  std::uint64_t bits = 0;

  Mark() = default;
  Mark(Time time, Actor actor) : bits(time << 24 | actor) {}
  Time time() const { return bits >> 24; }
  Actor actor() const { return static_cast<Actor>(bits & 0xffffff); }
  bool operator==(const Mark&) const = default;
};
inline constexpr Actor first_set = 1 << 15;
inline bool is_set(Mark mark) { return mark.actor() >= first_set; }

/// The latest mark of a set, the rest of it, and how many there are.
struct MarkSet {
  Mark one, rest;
  std::size_t size;
};

/// By actor, up to when its accesses are known, and known to be fenced; beyond the end, not at all.
/// What was done up to `all_fenced` is fenced, whoever did it.
struct Clock {
  std::vector<Time> known, fenced;
  Time all_fenced = 0;
};

/// A thread as it looks at the accesses of others. Good until the next event.
class Observer {
 public:
  Observer() = default;
  explicit Observer(Actor thread);
  /// The wgmma of a warp: it knows what the warp's first lane knows.
  static Observer wgmma_of(Actor first_lane);

  Mark mine() const { return mine_; }
  /// True of what was marked before the block began, which was done by others.
  bool precedes_block(Mark mark) const { return mark.time() <= began_; }
  /// True if the marked access happened before what this thread does now, or is its own.
  bool knows(Mark mark) const {
    if (mark.time() <= all_) return true;
    const Actor actor = mark.actor();
    if (is_set(mark)) return stranger(mark) == Mark();
    return actor == mine_.actor() || (actor / 32 == warp_ && mark.time() <= lanes_) ||
           (actor < told_->known.size() && mark.time() <= told_->known[actor]);
  }
  /// True if a proxy fence came between the marked access and what this thread does now.
  bool knows_fenced(Mark mark) const {
    const Actor actor = mark.actor();
    return mark.time() <= told_->all_fenced ||
           (actor < told_->fenced.size() && mark.time() <= told_->fenced[actor]);
  }
  /// Of several, one that is not known; else none.
  Mark stranger(Mark mark) const;
  /// `others` and mine. What mine makes superfluous may have been left out.
  Mark among(Mark others) const {
    return others.time() <= all_ || others == mine_ ? mine_ : added_to(others);
  }
  /// True where there are so many sets that those in no use should be forgotten (SetsInUse).
  bool crowded() const { return crowded_; }

 private:
  Mark added_to(Mark others) const;

  Mark mine_;
  Time began_ = 0, all_ = 0, lanes_ = 0;
  Actor warp_ = 0;
  const Clock* told_ = nullptr;
  bool crowded_ = false;
};

/// Says which thread runs from now on.
void observe_as(int thread);
/// Of the running thread.
const Observer& observer();

/// Forgets all sets but those that keep() is called with, which it renumbers.
class SetsInUse {
 public:
  SetsInUse();
  ~SetsInUse();
  void keep(Mark& mark);

 private:
  std::vector<MarkSet> sets_;
  std::unordered_map<Actor, Mark> number_;
};

/// A block of so many threads begins, or all of them have come to a barrier: whatever was done is
/// known to all.
void begin_order(std::size_t threads);
void order_block();

/// Every lane of a warp knows what any of them knows.
void order_warp(int first_thread, int lanes);

/// fence.proxy.async of the running thread, for all accesses that it knows.
void fence_known_accesses();

/// Separates what was before from what will be, and returns the time of what was.
Time advance();
/// Every lane of the warp knows the reads that the warp's wgmma has made up to now.
void finish_wgmma(int first_lane);

/// An access of an actor, now, which is known to whoever acquires the clock.
Mark act(Actor actor, Clock& clock);
/// Adds the accesses and the knowledge of the running thread to a clock, to be acquired by others.
Mark release(Clock& clock);
/// The running thread learns what was released into the clock.
void acquire(const Clock& clock);

}  // namespace dsa::cuda::host
