// tests/threads.hpp — loops of tests are small, and are shared all the same.
#pragma once

#include "core/threads.hpp"

namespace dsa::test {

/// A scope with so many threads, in the smallest loop, too.
struct SharingThreads : Threads {
  explicit SharingThreads(int n) : Threads(n, Sharing::always) {}
};

}  // namespace dsa::test
