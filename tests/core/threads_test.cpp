#include "core/threads.hpp"

#include <atomic>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "core/random.hpp"
#include "tests/catch.hpp"

using namespace dsa;

namespace {

/// Which items a loop ran, how often, and whether one thread's number was used twice at a time.
struct Ran {
  std::vector<std::atomic<int>> items;
  std::vector<std::atomic<int>> inside;
  std::atomic<bool> collided{false};

  Ran(Index n, int threads)
      : items(static_cast<std::size_t>(n)), inside(static_cast<std::size_t>(threads)) {}
  void operator()(Index i, int thread) {
    if (inside[static_cast<std::size_t>(thread)].fetch_add(1) != 0) collided = true;
    ++items[static_cast<std::size_t>(i)];
    inside[static_cast<std::size_t>(thread)].fetch_sub(1);
  }
  bool once_each() const {
    return std::all_of(items.begin(), items.end(), [](const auto& n) { return n == 1; });
  }
};

}  // namespace

TEST_CASE("a loop runs every item once, and no thread's number twice at a time", "[threads]") {
  for (const int n : {1, 2, 3, 7}) {
    const Threads scope(n, Sharing::always);
    for (const Index items : {0, 1, 2, 5, 64, 1000})
      for (const Index item_ns : {1, 700, 100'000}) {
        Ran ran(items, n);
        parallel_for(items, item_ns, [&](Index i, int thread) { ran(i, thread); });
        INFO(n << " threads, " << items << " items of " << item_ns << " ns");
        CHECK(ran.once_each());
        CHECK_FALSE(ran.collided);
      }
  }
}

TEST_CASE("thousands of loops in a row are all run whole", "[threads]") {
  const Threads scope(3, Sharing::always);
  Index wrong = 0;
  for (int loop = 0; loop < 20'000; ++loop) {
    std::vector<Index> squares(9);
    parallel_for(9, 100'000, [&](Index i) { squares[static_cast<std::size_t>(i)] = i * i; });
    wrong += std::accumulate(squares.begin(), squares.end(), Index{0}) != 204;
  }
  CHECK(wrong == 0);
}

TEST_CASE("loops from several threads at once do not meet", "[threads]") {
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int caller = 0; caller < 3; ++caller)
    callers.emplace_back([&] {
      const Threads scope(2, Sharing::always);
      for (int loop = 0; loop < 2'000; ++loop) {
        Ran ran(5, 2);
        parallel_for(5, 100'000, [&](Index i, int thread) { ran(i, thread); });
        if (!ran.once_each() || ran.collided) ++wrong;
      }
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

TEST_CASE("an exception leaves the loop, that of the first piece that failed", "[threads]") {
  for (const int n : {1, 3}) {
    const Threads scope(n, Sharing::always);
    for (int loop = 0; loop < 100; ++loop)
      CHECK_THROWS_WITH(parallel_for(50, 100'000,
                                     [](Index i) {
                                       if (i % 10 == 7) throw Error("item " + std::to_string(i));
                                     }),
                        "item 7");
    Ran after(10, n);
    parallel_for(10, 100'000, [&](Index i, int thread) { after(i, thread); });
    CHECK(after.once_each());
  }
}

TEST_CASE("a loop within a loop stays on its thread", "[threads]") {
  const Threads scope(3, Sharing::always);
  std::atomic<int> elsewhere{0}, of_several{0};
  parallel_for(6, 100'000, [&](Index) {
    const std::thread::id mine = std::this_thread::get_id();
    of_several += threads() != 1;
    parallel_for(6, 100'000, [&](Index, int thread) {
      elsewhere += std::this_thread::get_id() != mine || thread != 0;
    });
  });
  CHECK(elsewhere == 0);
  CHECK(of_several == 0);
  CHECK(threads() == 3);
}

TEST_CASE("a loop of little work wakes nobody", "[threads]") {
  const Threads scope(4, Sharing::worthwhile);
  const auto shared_by = [](Index items, Index item_ns) {
    const std::uint64_t before = shared_loops();
    parallel_for(items, item_ns, [](Index) {});
    return shared_loops() - before;
  };
  CHECK(shared_by(100, shared_loop_ns / 100 - 1) == 0);
  CHECK(shared_by(100, shared_loop_ns / 100) == 1);
  CHECK(shared_by(1, 100 * shared_loop_ns) == 0);
  CHECK(shared_by(1000, 0) == 0);
  const Threads one(1);
  CHECK(shared_by(100, shared_loop_ns) == 0);
}

TEST_CASE("a scope of threads ends with its block", "[threads]") {
  const int before = threads();
  {
    const Threads five(5);
    CHECK(threads() == 5);
    {
      const Threads none(0);
      CHECK(threads() == 1);
    }
    CHECK(threads() == 5);
  }
  CHECK(threads() == before);
}
