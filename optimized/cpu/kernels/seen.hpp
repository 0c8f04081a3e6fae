// optimized/cpu/kernels/seen.hpp — which lanes of a vector a query sees, and sums across lanes.
#pragma once

#include "optimized/cpu/kernels/native.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {  // nothing here may be merged by the linker

inline Integers lane_numbers() {
  Integers lane;
  for (int i = 0; i < width; ++i) lane[i] = i;
  return lane;
}

/// Of up to 64 columns, those whose bit is set.
class Seen {
 public:
  explicit Seen(std::uint64_t bits) : bits_(bits), lane_(lane_numbers()) {}
  /// Of the vector whose first column is `first`.
  Integers operator()(Index first) const {
    const auto here = static_cast<std::int32_t>(bits_ >> first);
    return (fill(here) >> lane_ & 1) != 0;
  }

 private:
  std::uint64_t bits_;
  Integers lane_;
};

/// The first n columns.
class Within {
 public:
  explicit Within(Index n) : n_(fill(static_cast<std::int32_t>(n))), lane_(lane_numbers()) {}
  Integers operator()(Index first) const { return lane_ + static_cast<std::int32_t>(first) < n_; }

 private:
  Integers n_, lane_;
};

inline float largest_of(Vector x) {
  float y = x[0];
  for (int i = 1; i < width; ++i) y = x[i] > y ? x[i] : y;
  return y;
}
inline float sum_of(Vector x) {
  float y = x[0];
  for (int i = 1; i < width; ++i) y += x[i];
  return y;
}

}  // namespace
}  // namespace dsa::cpu::DSA_TIER
