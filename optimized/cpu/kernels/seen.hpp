// optimized/cpu/kernels/seen.hpp — which lanes of a vector a query sees, and sums across lanes.
#pragma once

#include "optimized/cpu/kernels/native.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {  // nothing here may be merged by the linker

/// Columns [begin, end) of a row.
class Seen {
 public:
  Seen(Index begin, Index end)
      : begin_(fill(static_cast<std::int32_t>(begin))), end_(fill(static_cast<std::int32_t>(end))) {
    for (int i = 0; i < width; ++i) lane_[i] = i;
  }
  /// Of the vector whose first column is `first`.
  Integers operator()(Index first) const {
    const Integers at = lane_ + static_cast<std::int32_t>(first);
    return (begin_ <= at) & (at < end_);
  }

 private:
  Integers begin_, end_, lane_;
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
