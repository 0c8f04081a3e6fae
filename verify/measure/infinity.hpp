// verify/measure/infinity.hpp — what a limit is that nothing exceeds.
#pragma once

#include <limits>

namespace dsa::verify {

inline constexpr double inf = std::numeric_limits<double>::infinity();

}  // namespace dsa::verify
