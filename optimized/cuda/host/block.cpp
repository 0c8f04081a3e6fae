#include "optimized/cuda/host/block.hpp"

#include <algorithm>
#include <exception>
#include <memory>
#include <vector>

#include "optimized/cuda/host/fiber.hpp"
#include "optimized/cuda/host/global_memory.hpp"
#include "optimized/cuda/host/hopper.hpp"
#include "optimized/cuda/host/mbarrier.hpp"
#include "optimized/cuda/host/order.hpp"
#include "optimized/cuda/host/shared_memory.hpp"
#include "optimized/cuda/host/wgmma.hpp"

namespace dsa::cuda::host {
namespace {

struct Thread {
  enum class State { ready, waiting, done };
  State state = State::ready;
  Awaited awaited{};
  int line = 0;
};

/// The threads of a warp, or of a warpgroup, that have come to an operation.
struct Meeting {
  const char* what = nullptr;
  int line = 0, arrived = 0;
  void* threads[warpgroup_size] = {};
};

/// The running block. One for each thread of the operating system.
struct Machine {
  const char* kernel = nullptr;
  const std::function<void()>* body = nullptr;
  int thread = -1;  // that runs
  int barrier_line = 0, at_barrier = 0;
  std::vector<Thread> threads;
  std::vector<Meeting> warps, warpgroups;
  LaunchKind kind;
  bool waited = false;  // for the grids before
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::exception_ptr failure;

  void run_block();
  void sleep(Awaited awaited, int line);
  bool meets(Meeting& meeting, const char* what, const char* group, int line, void* mine, int first,
             int count);
  void end_block();
  void life_of_a_thread();
  [[noreturn]] void report_stuck();
};

thread_local Machine machine;

std::string text(const Dim3& d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

Dim3 place_of(int thread) {
  const unsigned n = static_cast<unsigned>(thread);
  return {n % blockDim.x, n / blockDim.x % blockDim.y, n / (blockDim.x * blockDim.y)};
}

std::string whereabouts(int thread) {
  return std::string(machine.kernel) + ", block " + text(blockIdx) + ", thread " +
         text(place_of(thread)) + ": ";
}

/// The body of a fiber: every block of every grid has a turn.
void Machine::life_of_a_thread() {
  for (;;) {
    try {
      (*body)();
    } catch (...) {
      failure = std::current_exception();
    }
    threads[static_cast<std::size_t>(thread)].state = Thread::State::done;
    fibers[static_cast<std::size_t>(thread)]->yield();
  }
}

void Machine::sleep(Awaited awaited, int line) {
  Thread& me = threads[static_cast<std::size_t>(thread)];
  me = {Thread::State::waiting, awaited, line};
  fibers[static_cast<std::size_t>(thread)]->yield();
}

std::string waiting_place(const Thread& t) {
  return std::string(t.awaited.name) + " of line " + std::to_string(t.line) +
         (t.awaited.at ? " (" + t.awaited.text(t.awaited.at) + ")" : "");
}

/// Nobody can go on: tells of one thread that waits, for something with a state if there is one,
/// and of one that it waits for.
void Machine::report_stuck() {
  const auto is_at = [this](bool with_state) {
    return std::find_if(threads.begin(), threads.end(), [&](const Thread& t) {
      return t.state == Thread::State::waiting && (!with_state || t.awaited.at);
    });
  };
  auto waiting = is_at(true);
  if (waiting == threads.end()) waiting = is_at(false);
  std::string sentence = "waits at " + waiting_place(*waiting);
  const auto other = std::find_if(threads.begin(), threads.end(), [&](const Thread& t) {
    if (t.state == Thread::State::done) return !waiting->awaited.at;
    return t.line != waiting->line;
  });
  if (other != threads.end())
    sentence +=
        ", and thread " + text(place_of(static_cast<int>(other - threads.begin()))) +
        (other->state == Thread::State::done ? " has ended" : " at " + waiting_place(*other));
  fail(sentence + (waiting->awaited.at ? "; nobody can go on" : "; every thread must come to it"),
       static_cast<int>(waiting - threads.begin()));
}

void Machine::run_block() {
  threads.assign(threads.size(), {});
  for (Meeting& warp : warps) warp.arrived = 0;
  for (Meeting& warpgroup : warpgroups) warpgroup.arrived = 0;
  at_barrier = 0;
  waited = false;
  begin_order(threads.size());
  begin_mbarriers();
  begin_hopper(threads.size());
  begin_wgmma(threads.size());
  for (std::size_t done = 0; done < threads.size();) {
    bool progress = false;
    done = 0;
    for (std::size_t i = 0; i < threads.size(); ++i) {
      if (threads[i].state == Thread::State::ready) {
        thread = static_cast<int>(i);
        threadIdx = place_of(thread);
        observe_as(thread);
        fibers[i]->resume();
        if (failure) std::rethrow_exception(failure);
        progress = true;
      }
      done += threads[i].state == Thread::State::done;
    }
    if (!progress && done < threads.size()) report_stuck();
  }
  end_block();
}

void Machine::end_block() {
  end_mbarriers();
  end_hopper();
  end_wgmma();
  if (kind.early && !waited)
    fail(
        "has ended, and so has its block, without waiting for the grids before: it was launched "
        "early");
}

void check_launch(const char* kernel, Dim3 grid, Dim3 block, std::size_t shared_bytes,
                  LaunchKind kind) {
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535 || threads == 0 || threads > 1024 ||
      shared_bytes > (kind.hopper ? hopper_shared_limit : shared_limit))
    throw Error(std::string(kernel) + ": cannot be launched with a grid of " + text(grid) +
                ", blocks of " + text(block) + " and " + std::to_string(shared_bytes) +
                " bytes of shared memory");
}

}  // namespace

void fail(const std::string& sentence, int thread) { throw Error(whereabouts(thread) + sentence); }

int thread_number() { return machine.thread; }

void run_grid(const char* kernel, Dim3 grid, Dim3 block, std::size_t shared_bytes, LaunchKind kind,
              const std::function<void()>& body) {
  check_launch(kernel, grid, block, shared_bytes, kind);
  const std::size_t count = std::size_t{block.x} * block.y * block.z;
  machine.kernel = kernel;
  machine.body = &body;
  machine.kind = kind;
  machine.threads.resize(count);
  machine.warps.assign((count + warp_size - 1) / warp_size, {});
  machine.warpgroups.assign((count + warpgroup_size - 1) / warpgroup_size, {});
  while (machine.fibers.size() < count)
    machine.fibers.push_back(std::make_unique<Fiber>([] { machine.life_of_a_thread(); }));
  gridDim = grid;
  blockDim = block;
  try {
    for (unsigned z = 0; z < grid.z; ++z)
      for (unsigned y = 0; y < grid.y; ++y)
        for (unsigned x = 0; x < grid.x; ++x) {
          blockIdx = {x, y, z};
          poison_shared(shared_bytes);
          machine.run_block();
        }
    check_guards(kernel);
  } catch (...) {
    machine.failure = nullptr;
    machine.fibers.clear();  // in the middle of the kernel, all of them
    throw;
  }
}

void block_barrier(int line) {
  Machine& m = machine;
  if (m.at_barrier == 0) m.barrier_line = line;
  if (line != m.barrier_line)
    fail("is at the barrier of line " + std::to_string(line) + ", others at that of line " +
         std::to_string(m.barrier_line) + "; every thread must come to the same");
  if (++m.at_barrier < static_cast<int>(m.threads.size())) return m.sleep({"the barrier"}, line);
  m.at_barrier = 0;
  order_block();
  for (Thread& t : m.threads)
    if (t.state == Thread::State::waiting) t.state = Thread::State::ready;
}

/// True for the last of `count` threads to come to the operation. The others sleep.
bool Machine::meets(Meeting& meeting, const char* what, const char* group, int line, void* mine,
                    int first, int count) {
  if (meeting.arrived == 0) {
    meeting.what = what;
    meeting.line = line;
    std::fill_n(meeting.threads, warpgroup_size, nullptr);
  }
  if (line != meeting.line || what != meeting.what)
    fail("is at " + std::string(what) + " of line " + std::to_string(line) + ", others of its " +
         group + " at " + meeting.what + " of line " + std::to_string(meeting.line) +
         "; every lane must come to the same");
  meeting.threads[thread - first] = mine;
  if (++meeting.arrived < count) {
    sleep({what}, line);
    return false;
  }
  meeting.arrived = 0;
  for (int i = first; i < first + count; ++i)
    if (i != thread) threads[static_cast<std::size_t>(i)].state = Thread::State::ready;
  return true;
}

void warp_operation(const char* what, int line, void* mine, void (*together)(void* const*),
                    bool orders) {
  Machine& m = machine;
  const int first = m.thread / warp_size * warp_size;
  const int lanes = std::min<int>(warp_size, static_cast<int>(m.threads.size()) - first);
  Meeting& warp = m.warps[static_cast<std::size_t>(m.thread / warp_size)];
  if (!m.meets(warp, what, "warp", line, mine, first, lanes)) return;
  if (orders) order_warp(first, lanes);
  together(warp.threads);
}

void warpgroup_operation(const char* what, int line, void* mine, void (*together)(void* const*)) {
  Machine& m = machine;
  const int first = m.thread / warpgroup_size * warpgroup_size;
  if (first + warpgroup_size > static_cast<int>(m.threads.size()))
    fail("is at " + std::string(what) + " in a warpgroup of less than 128 threads");
  Meeting& group = m.warpgroups[static_cast<std::size_t>(m.thread / warpgroup_size)];
  if (m.meets(group, what, "warpgroup", line, mine, first, warpgroup_size)) together(group.threads);
}

void sleep_on(Awaited awaited, int line) { machine.sleep(awaited, line); }

void wake(const void* at) {
  for (Thread& t : machine.threads)
    if (t.state == Thread::State::waiting && t.awaited.at == at) t.state = Thread::State::ready;
}

void wait_for_earlier_grids() { machine.waited = true; }

}  // namespace dsa::cuda::host
