// optimized/cuda/topk.cuh — the total order of scores, and a block's search for the K largest.
//
// Value descending, then index ascending; -0 = +0; -infinity is invisible and never taken. A score
// becomes an unsigned number of the same order, its rank: 0 if it is invisible.
#pragma once

#include "optimized/cuda/numbers.cuh"

namespace dsa::cuda::DSA_PLACE {

/// Of a NaN: something. Whoever calls it looks for NaN first.
__device__ inline std::uint32_t rank_of(float score) {
  if (score == -INFINITY) return 0;
  const std::uint32_t bits = bits_of(score == 0 ? 0.0f : score);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/// What is taken: every rank above `rank`, and the first `equals` that are equal to it.
struct Cut {
  std::uint32_t rank = 0;
  Index equals = 0;
};

/// Shared memory that the functions below need; any block of whole warps, up to 1024 threads.
struct SelectScratch {
  Shared<std::int32_t> histogram, warps, state;
  static constexpr Index bins = 256;

  __host__ __device__ static constexpr Index bytes() { return 4 * (bins + 32 + 4); }
  __device__ explicit SelectScratch(SharedMemory& memory)
      : histogram(memory.take<std::int32_t>(bins)),
        warps(memory.take<std::int32_t>(32)),
        state(memory.take<std::int32_t>(4)) {}
};

/// The cut that takes K of ranks rank(0) ... rank(n-1), of which at least K are visible; K > 0.
/// Four passes, eight bits each: the digits of the K-th largest rank, highest first.
template <class Rank>
__device__ Cut find_cut(Rank rank, Index n, Index K, SelectScratch scratch) {
  std::uint32_t found = 0;
  Index wanted = K;
  for (int shift = 24; shift >= 0; shift -= 8) {
    const std::uint32_t known = shift == 24 ? 0 : ~std::uint32_t{0} << (shift + 8);
    for (Index bin = threadIdx.x; bin < SelectScratch::bins; bin += blockDim.x)
      scratch.histogram[bin] = 0;
    __syncthreads();
    for (Index i = threadIdx.x; i < n; i += blockDim.x) {
      const std::uint32_t r = rank(i);
      if ((r & known) == found) scratch.histogram.atomic_add(r >> shift & 255, 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      Index above = 0, digit = SelectScratch::bins - 1;
      while (above + scratch.histogram[digit] < wanted) above += scratch.histogram[digit--];
      scratch.state[0] = static_cast<std::int32_t>(digit);
      scratch.state[1] = static_cast<std::int32_t>(wanted - above);
    }
    __syncthreads();
    found |= static_cast<std::uint32_t>(std::int32_t(scratch.state[0])) << shift;
    wanted = std::int32_t(scratch.state[1]);
  }
  return {found, wanted};
}

/// Calls take(i, position) for every i that the cut takes, in ascending order of both, and returns
/// how many there are. What is read of i in take() may be written to at `position`: all threads
/// have read theirs by then. `load(i)` gives what take() is told instead of i.
template <class Rank, class Load, class Take>
__device__ Index take_cut(Cut cut, Rank rank, Load load, Index n, SelectScratch scratch,
                          Take take) {
  Index taken = 0, equals = 0;
  for (Index begin = 0; begin < n; begin += blockDim.x) {
    const Index i = begin + threadIdx.x;
    const std::uint32_t r = i < n ? rank(i) : 0;
    const auto value = load(i < n ? i : n - 1);
    const bool equal = i < n && r == cut.rank && r != 0;
    const Place of_equal = place_among(equal, scratch.warps);
    const bool yes = (r > cut.rank) || (equal && equals + of_equal.before < cut.equals);
    const Place place = place_among(yes, scratch.warps);
    if (yes) take(value, taken + place.before);
    taken += place.total;
    equals += of_equal.total;
  }
  return taken;
}

}  // namespace dsa::cuda::DSA_PLACE
