#include "optimized/cuda/host/mbarrier.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

namespace dsa::cuda::host {
namespace {

constexpr std::int64_t most = (1 << 20) - 1;  // arrivals, and bytes (PTX ISA, mbarrier)
constexpr std::int64_t row_bytes = 128, chunk_bytes = 16;

struct Flight {
  std::byte* to;
  std::vector<std::byte> bytes;
  int thread;
};

struct Phases {
  const Mbarrier* at;
  Actor actor;
  int thread;  // that initialised it
  int count;
  Mark initialised, begun = initialised;  // begun: this phase
  bool fenced = false;

  std::int64_t phase = 0, missing = count, expected = 0, flying = 0;
  std::vector<Flight> flights{};
  std::int64_t copying = 0;  // of the missing, those that arrive when their copies have landed
  std::vector<Copy> copies{};
  Clock arriving{}, complete{};  // what is released in this phase; was in the one before

  std::string name() const {
    return "the mbarrier at byte " + std::to_string(shared_offset(at, sizeof *at));
  }
  bool can_land() const {
    return missing == copying && flying == expected && (!flights.empty() || copying > 0);
  }

  void finish(Mark by) {
    complete = std::exchange(arriving, {});
    begun = by;
    ++phase, missing = count, expected = flying = copying = 0;
    flights.clear(), copies.clear();
    wake(at);
  }
  void land() {
    const Mark by = act(actor, arriving), by_threads = act(actor + 1, arriving);
    for (const Flight& f : flights) land_copy(f.to, f.bytes.data(), f.bytes.size(), by);
    for (const Copy& copy : copies) land_copy(copy.to, copy.from, copy.bytes, by_threads);
    finish(by_threads);
  }
  void expect_enough() const {
    if (missing == copying && flying > expected)
      fail("of " + name() + ", phase " + std::to_string(phase) + " expects " +
           std::to_string(expected) + " bytes, and copies bring " + std::to_string(flying));
  }
};

/// The mbarriers of the running block.
thread_local std::deque<Phases> all;

Phases* find(const void* mbarrier) {
  const auto it =
      std::find_if(all.begin(), all.end(), [&](const Phases& p) { return p.at == mbarrier; });
  return it == all.end() ? nullptr : &*it;
}

Phases& initialised(const Mbarrier& mbarrier, const char* mine) {
  const std::size_t at = shared_offset(&mbarrier, sizeof mbarrier);
  Phases* const p = find(&mbarrier);
  if (p == nullptr)
    fail(std::string(mine) + " an mbarrier at byte " + std::to_string(at) +
         ", where none was initialised");
  if (!observer().knows(p->initialised))
    fail(std::string(mine) + " " + p->name() + ", which thread " + std::to_string(p->thread) +
         " initialised; no barrier orders the two");
  return *p;
}

/// For what counts in the phase that there is.
Phases& begun(const Mbarrier& mbarrier, const char* mine) {
  Phases& p = initialised(mbarrier, mine);
  if (!observer().knows(p.begun))
    fail(std::string(mine) + " " + p.name() + " without having seen its phase " +
         std::to_string(p.phase - 1) + " complete: beyond the count of " + std::to_string(p.count) +
         ", or too early");
  return p;
}

Phases& arriving(const Mbarrier& mbarrier) {
  Phases& p = begun(mbarrier, "arrives at");
  if (p.missing == p.copying)
    fail("arrives at " + p.name() + " beyond the count of " + std::to_string(p.count) + ": phase " +
         std::to_string(p.phase) + " lacks nothing but bytes");
  return p;
}

void arrive_at(const Mbarrier& mbarrier, std::int64_t bytes) {
  Phases& p = arriving(mbarrier);
  if (bytes < 0 || p.expected + bytes > most)
    fail("lets " + p.name() + " expect " + std::to_string(p.expected + bytes) +
         " bytes; at most 2^20 - 1 can be counted");
  p.expected += bytes;
  --p.missing;
  const Mark by = release(p.arriving);
  p.expect_enough();
  if (p.missing == 0 && p.expected == 0) p.finish(by);
  if (p.can_land()) wake(p.at);
}

void fly(void* to, std::vector<std::byte> bytes, const Mbarrier& mbarrier) {
  Phases& p = begun(mbarrier, "copies for");
  if (!p.fenced)
    fail("copies for " + p.name() +
         ", which copies cannot see: no fence_mbarrier_init came after "
         "its initialisation");
  expect_fenced(to, bytes.size());
  open_copy(to, bytes.size());
  p.flying += static_cast<std::int64_t>(bytes.size());
  p.flights.push_back({static_cast<std::byte*>(to), std::move(bytes), thread_number()});
  p.expect_enough();
  if (p.can_land()) wake(p.at);
}

void expect_multiple(const char* what, const void* p, std::uintptr_t of) {
  if (reinterpret_cast<std::uintptr_t>(p) % of != 0)
    fail(std::string(what) + " an address that is no multiple of " + std::to_string(of));
}

}  // namespace

void Mbarrier::init(int count) {
  expect_multiple("initialises an mbarrier at", this, 8);
  if (const Phases* p = find(this)) fail("initialises " + p->name() + " again, which is in use");
  if (count < 1 || count > most)
    fail("initialises an mbarrier for " + std::to_string(count) + " arrivals, not 1 to 2^20 - 1");
  claims_shared(this, sizeof *this);
  const auto actor = first_mbarrier + static_cast<Actor>(2 * all.size());
  all.push_back({this, actor, thread_number(), count, observer().mine()});
}

void Mbarrier::arrive() { arrive_at(*this, 0); }

void Mbarrier::arrive_expect_bytes(int bytes) { arrive_at(*this, bytes); }

void Mbarrier::arrive_when_copied() {
  Phases& p = arriving(*this);
  const std::vector<Copy> mine = take_copies();
  p.copies.insert(p.copies.end(), mine.begin(), mine.end());
  ++p.copying;
  if (p.can_land()) wake(p.at);
}

void Mbarrier::wait(int parity, int line) {
  Phases& p = initialised(*this, "waits at");
  if (parity != 0 && parity != 1)
    fail("waits at " + p.name() + " for parity " + std::to_string(parity) + ", not 0 or 1");
  while (p.phase % 2 == parity) {
    if (p.can_land())
      p.land();
    else
      sleep_on({"the mbarrier", this, mbarrier_text}, line);
  }
  acquire(p.complete);
}

void fence_mbarrier_init() {
  for (Phases& p : all) p.fenced |= p.thread == thread_number();
}

void bulk_copy(void* to, const void* from, std::int64_t bytes, Mbarrier& mbarrier) {
  expect_multiple("copies in bulk to", to, chunk_bytes);
  expect_multiple("copies in bulk from", from, chunk_bytes);
  if (bytes <= 0 || bytes % chunk_bytes != 0)
    fail("copies " + std::to_string(bytes) + " bytes in bulk, no multiple of 16");
  check_global(from, static_cast<std::size_t>(bytes));
  const auto* begin = static_cast<const std::byte*>(from);
  fly(to, {begin, begin + bytes}, mbarrier);
}

void tensor_copy(void* to, const TensorMap& map, std::int64_t column, std::int64_t row,
                 Mbarrier& mbarrier) {
  const std::size_t at = shared_offset(to, static_cast<std::size_t>(map.box_rows * row_bytes));
  if (at % (8 * row_bytes) != 0)
    fail("copies a box to byte " + std::to_string(at) +
         " of shared memory, no multiple of 1024: rows would be permuted otherwise than a tile's");
  std::vector<std::byte> box(static_cast<std::size_t>(map.box_rows * row_bytes));
  const std::int64_t pitch = map.columns * map.element_bytes, first = column * map.element_bytes;
  for (std::int64_t r = 0; r < map.box_rows; ++r) {
    if (row + r < 0 || row + r >= map.rows) continue;
    const auto* source = static_cast<const std::byte*>(map.data) + (row + r) * pitch;
    const std::int64_t begin = std::max<std::int64_t>(first, 0);
    const std::int64_t end = std::min(first + row_bytes, pitch);
    if (begin >= end) continue;
    check_global(source + begin, static_cast<std::size_t>(end - begin));
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t chunk = (i - first) / chunk_bytes ^ r % 8;
      box[static_cast<std::size_t>(r * row_bytes + chunk * chunk_bytes +
                                   (i - first) % chunk_bytes)] = source[i];
    }
  }
  fly(to, std::move(box), mbarrier);
}

void begin_mbarriers() { all.clear(); }

void end_mbarriers() {
  for (const Phases& p : all) {
    if (!p.flights.empty())
      fail("has ended, and so has its block, while its copy is under way: " + mbarrier_text(p.at),
           p.flights.front().thread);
    if (p.copying > 0)
      fail("initialised an mbarrier that waits for copies at the end of the block: " +
               mbarrier_text(p.at),
           p.thread);
    if (p.expected > 0)
      fail("initialised an mbarrier that lacks bytes at the end of the block: " +
               mbarrier_text(p.at),
           p.thread);
  }
}

std::string mbarrier_text(const void* mbarrier) {
  const Phases& p = *find(mbarrier);
  return p.name() + " is in phase " + std::to_string(p.phase) + ", lacks " +
         std::to_string(p.missing) + " of " + std::to_string(p.count) + " arrivals and expects " +
         std::to_string(p.expected) + " bytes, of which copies bring " + std::to_string(p.flying);
}

}  // namespace dsa::cuda::host
