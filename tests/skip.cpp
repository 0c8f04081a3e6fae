// The end of a run is a reporter's event, whose base Catch2 2 declares only when asked.
#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include "tests/skip.hpp"

#include <atomic>
#include <iostream>

#include "tests/catch.hpp"

namespace dsa::test {
namespace {

std::atomic<int> skipped = 0;

#if __has_include(<catch2/catch_all.hpp>)
using ListenerBase = Catch::EventListenerBase;
#else
using ListenerBase = Catch::TestEventListenerBase;
#endif

/// Prints the number of skips. A run that failed prints none: its failure is what ctest has to
/// show.
class CountSkips : public ListenerBase {
 public:
  using ListenerBase::ListenerBase;

  void testRunEnded(const Catch::TestRunStats& run) override {
    if (skipped > 0 && run.totals.assertions.failed == 0)
      std::cout << "SKIPPED CHECKS: " << skipped << std::endl;
  }
};

}  // namespace

void skip(const std::string& reason) {
  ++skipped;
  std::cout << "SKIPPED: " << reason << std::endl;
}

CATCH_REGISTER_LISTENER(CountSkips)

}  // namespace dsa::test
