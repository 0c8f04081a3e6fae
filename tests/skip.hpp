// tests/skip.hpp — a check that cannot run here says so, and is counted.
#pragma once

#include <string>

namespace dsa::test {

/// Says on stdout that the case at work leaves something out, and why. At the end of the run the
/// number of skipped checks is printed; ctest shows such a case as skipped (tests/CMakeLists.txt).
void skip(const std::string& reason);

}  // namespace dsa::test
