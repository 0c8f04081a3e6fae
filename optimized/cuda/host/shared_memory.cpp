#include "optimized/cuda/host/shared_memory.hpp"

#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "optimized/cuda/host/block.hpp"
#include "optimized/cuda/host/global_memory.hpp"

namespace dsa::cuda::host {
namespace {

constexpr std::int16_t nobody = -1, several = -2;

/// The last time a byte was touched in one way, and by whom.
struct Mark {
  unsigned block = 0, warp_time = 0;
  std::int16_t thread = nobody, warp = nobody;  // `several` where there were more than one
};

/// Of a byte. Marks of blocks before are as good as none: time goes on.
struct Shadow {
  Mark write, read, update;  // update: atomically
};

struct Copy {
  std::byte* to;
  const std::byte* from;
  std::size_t bytes;
};
struct Copies {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;  // the oldest first
};

struct Memory {
  std::size_t bytes = 0;
  alignas(128) std::byte data[shared_limit];
  Shadow shadow[shared_limit];
  bool holds[shared_limit];
  std::map<int, Copies> copies;  // by thread
};

Memory& memory() {
  thread_local const std::unique_ptr<Memory> mine = std::make_unique<Memory>();
  return *mine;
}

struct Me {
  Time time = now();
  std::int16_t thread = static_cast<std::int16_t>(thread_number());
  std::int16_t warp = static_cast<std::int16_t>(thread_number() / warp_size);

  /// Nothing orders my access after the marked one.
  bool races_with(const Mark& mark) const {
    if (mark.block != time.block || mark.thread == thread || mark.thread == nobody) return false;
    return mark.warp != warp || mark.warp_time == time.warp;
  }
  void leave(Mark& mark) const {
    const bool same_interval = mark.block == time.block && mark.thread != nobody;
    const bool ordered = mark.warp == warp && mark.warp_time != time.warp;
    const bool alone = !same_interval || mark.thread == thread || ordered;
    const bool one_warp = !same_interval || mark.warp == warp;
    mark = {time.block, time.warp, alone ? thread : several, one_warp ? warp : several};
  }
};

std::size_t offset_of(const void* p, std::size_t bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  const auto begin = reinterpret_cast<std::uintptr_t>(memory().data);
  if (at < begin || at + bytes > begin + memory().bytes)
    fail("touches " + std::to_string(bytes) + " bytes outside the block's shared memory");
  return at - begin;
}

void race(std::size_t at, const char* mine, const char* theirs, const Mark& mark) {
  const std::string other =
      mark.thread >= 0 ? "thread " + std::to_string(mark.thread) : std::string("other threads");
  fail(std::string(mine) + " byte " + std::to_string(at) + " of shared memory, which " + other +
       " " + theirs + "; no barrier orders the two");
}

}  // namespace

void poison_shared(std::size_t bytes) {
  Memory& m = memory();
  m.bytes = bytes;
  std::memset(m.data, 0xff, bytes);
  std::memset(m.holds, 0, bytes);
  m.copies.clear();
}

std::byte* shared_at(std::size_t offset, std::size_t bytes) {
  if (offset + bytes > memory().bytes)
    fail("needs " + std::to_string(offset + bytes) + " bytes of shared memory, the launch gave " +
         std::to_string(memory().bytes));
  return memory().data + offset;
}

void reads_shared(const void* p, std::size_t bytes) {
  const std::size_t begin = offset_of(p, bytes);
  const Me me;
  Memory& m = memory();
  for (std::size_t i = begin; i < begin + bytes; ++i) {
    Shadow& s = m.shadow[i];
    if (me.races_with(s.write)) race(i, "reads", "wrote", s.write);
    if (me.races_with(s.update)) race(i, "reads", "updated", s.update);
    if (!m.holds[i])
      fail("reads byte " + std::to_string(i) +
           " of shared memory, to which nothing was written or a copy is still under way");
    me.leave(s.read);
  }
}

void writes_shared(const void* p, std::size_t bytes) {
  const std::size_t begin = offset_of(p, bytes);
  const Me me;
  Memory& m = memory();
  for (std::size_t i = begin; i < begin + bytes; ++i) {
    Shadow& s = m.shadow[i];
    if (me.races_with(s.write)) race(i, "writes", "wrote", s.write);
    if (me.races_with(s.read)) race(i, "writes", "read", s.read);
    if (me.races_with(s.update)) race(i, "writes", "updated", s.update);
    m.holds[i] = true;
    me.leave(s.write);
  }
}

void updates_shared(const void* p, std::size_t bytes) {
  const std::size_t begin = offset_of(p, bytes);
  const Me me;
  Memory& m = memory();
  for (std::size_t i = begin; i < begin + bytes; ++i) {
    Shadow& s = m.shadow[i];
    if (me.races_with(s.write)) race(i, "updates", "wrote", s.write);
    if (me.races_with(s.read)) race(i, "updates", "read", s.read);
    if (!m.holds[i])
      fail("updates byte " + std::to_string(i) + " of shared memory, which is not set");
    me.leave(s.update);
  }
}

void begin_copy(void* to, const void* from, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(to) % bytes != 0 ||
      reinterpret_cast<std::uintptr_t>(from) % bytes != 0)
    fail("copies " + std::to_string(bytes) + " bytes to or from an address that is no multiple");
  if (from != nullptr) check_global(from, bytes);
  writes_shared(to, bytes);
  std::memset(to, 0xff, bytes);
  std::memset(memory().holds + offset_of(to, bytes), 0, bytes);
  memory().copies[thread_number()].open.push_back(
      {static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes});
}

void commit_copies() {
  Copies& mine = memory().copies[thread_number()];
  mine.groups.push_back(std::move(mine.open));
  mine.open.clear();
}

void wait_for_copies(int pending) {
  Copies& mine = memory().copies[thread_number()];
  while (static_cast<int>(mine.groups.size()) > pending) {
    for (const Copy& copy : mine.groups.front()) {
      writes_shared(copy.to, copy.bytes);
      if (copy.from != nullptr)
        std::memcpy(copy.to, copy.from, copy.bytes);
      else
        std::memset(copy.to, 0, copy.bytes);
    }
    mine.groups.pop_front();
  }
}

}  // namespace dsa::cuda::host
