#include "optimized/cuda/host/hopper.hpp"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "optimized/cuda/host/warp.hpp"

namespace dsa::cuda::host {
namespace {

constexpr int file_registers = 65536, most_registers = 255;

struct NamedBarrier {
  int threads = 0;           // that all of them say
  std::vector<int> arrived;  // their numbers
  std::int64_t phase = 0;
  Clock arriving, complete;
};

struct Registers {
  int free = 0;
  std::vector<int> of_warp;  // a thread
};

thread_local std::array<NamedBarrier, 16> barriers;
thread_local Registers registers;

std::string name_of(const NamedBarrier& b) {
  return "named barrier " + std::to_string(&b - barriers.data());
}
std::string barrier_text(const void* at) {
  const auto& b = *static_cast<const NamedBarrier*>(at);
  return name_of(b) + " has " + std::to_string(b.arrived.size()) + " of " +
         std::to_string(b.threads) + " threads";
}
std::string registers_text(const void*) {
  return std::to_string(registers.free) + " registers are free";
}

NamedBarrier& barrier(int id) {
  if (id < 1 || id > 15)
    fail("comes to named barrier " + std::to_string(id) +
         ", expected 1 to 15; 0 is that of __syncthreads");
  return barriers[static_cast<std::size_t>(id)];
}

void come_to(NamedBarrier& b, int threads) {
  if (threads < warp_size || threads % warp_size != 0 || threads > 1024)
    fail("comes to " + name_of(b) + " of " + std::to_string(threads) +
         " threads, expected a multiple of 32 up to 1024");
  if (b.arrived.empty()) b.threads = threads;
  if (b.threads != threads)
    fail("comes to " + name_of(b) + " of " + std::to_string(threads) +
         " threads, others to one of " + std::to_string(b.threads) +
         "; all must say the same count");
  if (std::find(b.arrived.begin(), b.arrived.end(), thread_number()) != b.arrived.end())
    fail("comes to " + name_of(b) + " a second time before it is complete: " + barrier_text(&b));
  b.arrived.push_back(thread_number());
  release(b.arriving);
  if (static_cast<int>(b.arrived.size()) < threads) return;
  b.complete = std::exchange(b.arriving, {});
  b.arrived.clear();
  ++b.phase;
  wake(&b);
}

void change_registers(int count, bool grows, int line) {
  int& mine = registers.of_warp[static_cast<std::size_t>(thread_number() / warp_size)];
  if (grows ? count < mine : count > mine)
    fail("wants " + std::to_string(count) + " registers and has " + std::to_string(mine) +
         (grows ? "; grow_registers only adds" : "; shrink_registers only gives back"));
  while ((count - mine) * warp_size > registers.free)
    sleep_on({"grow_registers", &registers, registers_text}, line);
  registers.free -= (count - mine) * warp_size;
  mine = count;
  wake(&registers);
}

}  // namespace

void named_barrier_wait(int id, int threads, int line) {
  NamedBarrier& b = barrier(id);
  const std::int64_t phase = b.phase;
  come_to(b, threads);
  while (b.phase == phase) sleep_on({"a named barrier", &b, barrier_text}, line);
  acquire(b.complete);
}

void named_barrier_arrive(int id, int threads) { come_to(barrier(id), threads); }

void set_registers(int count, bool grows, int line) {
  if (count < 24 || count > 256 || count % 8 != 0)
    fail("wants " + std::to_string(count) + " registers, expected a multiple of 8 from 24 to 256");
  if (lane_number() == 0) change_registers(count, grows, line);
  int lane = 0;
  warp_operation(
      "setmaxnreg", line, &lane, [](void* const*) {}, false);
}

void begin_hopper(std::size_t threads) {
  for (NamedBarrier& b : barriers) b = {};
  const int count = std::min(most_registers, file_registers / static_cast<int>(threads)) / 8 * 8;
  registers.free = file_registers - count * static_cast<int>(threads);
  registers.of_warp.assign((threads + warp_size - 1) / warp_size, count);
}

void end_hopper() {
  for (const NamedBarrier& b : barriers)
    if (!b.arrived.empty())
      fail("has ended, and so has its block, while " + barrier_text(&b), b.arrived.front());
}

}  // namespace dsa::cuda::host
