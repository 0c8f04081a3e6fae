// tests/ranks/support.hpp — ranks of a job, each on a thread of its own.
#pragma once

#include <string>
#include <thread>
#include <vector>

#include "core/threads.hpp"
#include "optimized/ranks/collectives.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"

namespace dsa::test {

/// Calls f(ranks) as each rank of a job of n. Returns what it failed with, by rank; "": nothing.
template <class F>
std::vector<std::string> as_ranks(int n, F f,
                                  std::chrono::seconds patience = std::chrono::seconds(60)) {
  const Scratch scratch;
  const ranks::Meeting meeting{scratch / "ranks.json", patience, [](const std::string&) {}};
  std::vector<std::string> sentences(static_cast<std::size_t>(n));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < n; ++rank)
    threads.emplace_back([&, rank] {
      const Threads scope(1);
      try {
        ranks::Communicator job = ranks::begin({rank, n, "threads", "test"}, meeting);
        with_last_word(job, f);
      } catch (const std::exception& error) {
        sentences[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return sentences;
}

inline void check_no_failure(const std::vector<std::string>& sentences) {
  for (const std::string& sentence : sentences) CHECK(sentence == "");
}

}  // namespace dsa::test
