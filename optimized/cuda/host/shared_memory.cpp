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

enum class Holds : std::uint64_t { data, copy, mbarrier };  // as wide as a mark: no padding

/// The state of one byte. Marks from before the block began count as none.
struct Shadow {
  Mark write, read, update;  // update: atomically. Both since the last write
  Holds holds = Holds::data;
  bool operator==(const Shadow&) const = default;
};

struct Copies {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;  // the oldest first
};

struct Memory {
  std::size_t bytes = 0;
  alignas(1024) std::byte data[hopper_shared_limit];
  Shadow shadow[hopper_shared_limit];
  std::map<int, Copies> copies;  // by thread
};

Memory& memory() {
  thread_local const std::unique_ptr<Memory> mine = std::make_unique<Memory>();
  return *mine;
}

std::size_t offset_in(const Memory& m, const void* p, std::size_t bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  const auto begin = reinterpret_cast<std::uintptr_t>(m.data);
  if (at < begin || at + bytes > begin + m.bytes)
    fail("touches " + std::to_string(bytes) + " bytes outside the block's shared memory");
  return at - begin;
}

std::string byte_text(std::size_t at) { return "byte " + std::to_string(at) + " of shared memory"; }

[[noreturn]] void race(const Observer& me, std::size_t at, const char* mine, const char* theirs,
                       Mark mark) {
  const Actor other = me.stranger(mark).actor();
  const std::string who = other < first_wgmma ? "thread " + std::to_string(other)
                          : other < first_mbarrier
                              ? "the wgmma of warp " + std::to_string(other - first_wgmma)
                              : std::string("a copy");
  fail(std::string(mine) + " " + byte_text(at) + ", which " + who + " " + theirs +
       "; no barrier orders the two");
}
void expect_known(const Observer& me, std::size_t at, const char* mine, const char* theirs,
                  Mark mark) {
  if (!me.knows(mark)) race(me, at, mine, theirs, mark);
}

[[noreturn]] void refuse(std::size_t at, const char* mine, const char* why) {
  fail(std::string(mine) + " " + byte_text(at) + ", " + why);
}
const char* const unfenced = "which a thread wrote; no proxy fence lies between the two";
void expect_free(const Observer& me, std::size_t at, const char* mine, const Shadow& s) {
  if (s.holds == Holds::data || me.precedes_block(s.write)) return;
  refuse(at, mine,
         s.holds == Holds::copy ? "to which a copy is still under way" : "which is an mbarrier");
}
void expect_data(const Observer& me, std::size_t at, const char* mine, const Shadow& s) {
  if (me.precedes_block(s.write)) refuse(at, mine, "to which nothing was written");
  expect_free(me, at, mine, s);
}

/// Calls f(byte, shadow), which says how to change it: once for neighbours that are alike.
template <class F>
void touch(const void* p, std::size_t bytes, F f) {
  Memory& m = memory();
  Shadow* const shadow = m.shadow;
  std::size_t i = offset_in(m, p, bytes);
  for (const std::size_t end = i + bytes; i < end;) {
    const Shadow old = shadow[i];
    const auto change = f(i, old);
    do change(shadow[i++]);
    while (i < end && shadow[i] == old);
  }
}

auto become(Mark write, Holds holds) {
  return [=](Shadow& s) {
    s.write = write;
    s.read = Mark();
    s.update = Mark();
    s.holds = holds;
  };
}

/// Whatever it is that makes an end of what the bytes held.
void overwrite(const void* p, std::size_t bytes, const char* what, Holds holds) {
  const Observer& me = observer();
  touch(p, bytes, [&](std::size_t at, const Shadow& s) {
    expect_free(me, at, what, s);
    expect_known(me, at, what, "wrote", s.write);
    expect_known(me, at, what, "read", s.read);
    expect_known(me, at, what, "updated", s.update);
    return become(me.mine(), holds);
  });
}

void forget_sets_in_no_use() {
  Memory& m = memory();
  SetsInUse sets;
  for (std::size_t i = 0; i < m.bytes; ++i)
    sets.keep(m.shadow[i].read), sets.keep(m.shadow[i].update);
}

}  // namespace

void poison_shared(std::size_t bytes) {
  Memory& m = memory();
  m.bytes = bytes;
  std::memset(m.data, 0xff, bytes);
  m.copies.clear();
}

std::byte* shared_at(std::size_t offset, std::size_t bytes) {
  if (offset + bytes > memory().bytes)
    fail("needs " + std::to_string(offset + bytes) + " bytes of shared memory, the launch gave " +
         std::to_string(memory().bytes));
  return memory().data + offset;
}

std::size_t shared_offset(const void* p, std::size_t bytes) {
  return offset_in(memory(), p, bytes);
}

void reads_shared(const void* p, std::size_t bytes) {
  const Observer& me = observer();
  if (me.crowded()) forget_sets_in_no_use();
  touch(p, bytes, [&](std::size_t at, const Shadow& s) {
    expect_data(me, at, "reads", s);
    expect_known(me, at, "reads", "wrote", s.write);
    expect_known(me, at, "reads", "updated", s.update);
    return [mark = me.among(s.read)](Shadow& t) { t.read = mark; };
  });
}

void writes_shared(const void* p, std::size_t bytes) { overwrite(p, bytes, "writes", Holds::data); }

void updates_shared(const void* p, std::size_t bytes) {
  const Observer& me = observer();
  if (me.crowded()) forget_sets_in_no_use();
  touch(p, bytes, [&](std::size_t at, const Shadow& s) {
    expect_data(me, at, "updates", s);
    expect_known(me, at, "updates", "wrote", s.write);
    expect_known(me, at, "updates", "read", s.read);
    return [mark = me.among(s.update)](Shadow& t) { t.update = mark; };
  });
}

void begins_wgmma_read(const Observer& wgmma, const void* p, std::size_t bytes) {
  touch(p, bytes, [&](std::size_t at, const Shadow& s) {
    expect_data(wgmma, at, "lets a wgmma read", s);
    expect_known(wgmma, at, "lets a wgmma read", "wrote", s.write);
    expect_known(wgmma, at, "lets a wgmma read", "updated", s.update);
    if (!is_asynchronous(s.write.actor()) && !wgmma.knows_fenced(s.write))
      refuse(at, "lets a wgmma read", unfenced);
    return [](Shadow&) {};
  });
}

void ends_wgmma_read(const Observer& wgmma, const void* p, std::size_t bytes, Time issued) {
  if (wgmma.crowded()) forget_sets_in_no_use();
  touch(p, bytes, [&](std::size_t at, const Shadow& s) {
    if (s.write.time() > issued || s.update.time() > issued)
      refuse(at, "waits for a wgmma that reads", "which was written while the wgmma was in flight");
    return [mark = wgmma.among(s.read)](Shadow& t) { t.read = mark; };
  });
}

void expect_fenced(const void* p, std::size_t bytes) {
  const Observer& me = observer();
  touch(p, bytes, [&](std::size_t at, const Shadow& s) {
    if (s.holds == Holds::data && !me.precedes_block(s.write) &&
        !is_asynchronous(s.write.actor()) && !me.knows_fenced(s.write))
      refuse(at, "copies in bulk to", unfenced);
    return [](Shadow&) {};
  });
}

void claims_shared(const void* p, std::size_t bytes) {
  overwrite(p, bytes, "initialises an mbarrier at", Holds::mbarrier);
}

void open_copy(const void* to, std::size_t bytes) {
  overwrite(to, bytes, "copies to", Holds::copy);
  std::memset(memory().data + shared_offset(to, bytes), 0xff, bytes);
}

void land_copy(void* to, const void* from, std::size_t bytes, Mark by) {
  touch(to, bytes, [&](std::size_t, const Shadow&) { return become(by, Holds::data); });
  if (from != nullptr)
    std::memcpy(to, from, bytes);
  else
    std::memset(to, 0, bytes);
}

void begin_copy(void* to, const void* from, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(to) % bytes != 0 ||
      reinterpret_cast<std::uintptr_t>(from) % bytes != 0)
    fail("copies " + std::to_string(bytes) + " bytes to or from an address that is no multiple");
  if (from != nullptr) check_global(from, bytes);
  open_copy(to, bytes);
  memory().copies[thread_number()].open.push_back(
      {static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes});
}

void commit_copies() {
  Copies& mine = memory().copies[thread_number()];
  mine.groups.push_back(std::move(mine.open));
  mine.open.clear();
}

std::vector<Copy> take_copies() {
  Copies& mine = memory().copies[thread_number()];
  std::vector<Copy> all;
  for (const std::vector<Copy>& group : mine.groups)
    all.insert(all.end(), group.begin(), group.end());
  all.insert(all.end(), mine.open.begin(), mine.open.end());
  mine = {};
  return all;
}

void wait_for_copies(int pending) {
  Copies& mine = memory().copies[thread_number()];
  while (static_cast<int>(mine.groups.size()) > pending) {
    for (const Copy& copy : mine.groups.front())
      land_copy(copy.to, copy.from, copy.bytes, observer().mine());
    mine.groups.pop_front();
  }
}

}  // namespace dsa::cuda::host
