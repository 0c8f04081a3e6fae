// optimized/cuda/device/topk.cuh — the total order of scores, and a block's search for the K
// largest.
//
// Value descending, then index ascending; -0 = +0; -infinity is invisible and never taken. A score
// becomes an unsigned number of the same order, its rank: 0 if it is invisible.
#pragma once

#include <algorithm>

#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/numbers.cuh"

namespace dsa::cuda::DSA_PLACE {

/// The rank of a NaN is arbitrary: callers look for NaN first.
__device__ inline std::uint32_t rank_of(float score) {
  if (score == -INFINITY) return 0;
  const std::uint32_t bits = bits_of(score == 0 ? 0.0f : score);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/// A cut takes every rank above `rank`, and the first `equals` that are equal to it.
struct Cut {
  std::uint32_t rank = 0;
  Index equals = 0;
};

/// The digit of the wanted-th largest rank, and how many ranks with that digit are wanted.
struct Digit {
  Index digit, wanted;
};

/// histogram[d]: how many ranks have digit d, at least `wanted` in all. Lanes of the first warp add
/// up their share of the bins, and the one whose share holds the wanted-th looks for it.
__device__ inline Digit find_digit(Shared<std::int32_t> histogram, Index bins, Index wanted,
                                   Shared<std::int32_t> state) {
  __syncthreads();
  if (threadIdx.x < warp_size) {
    const Index share = bins / warp_size;
    Index digit = bins - 1 - threadIdx.x * share;
    std::int32_t own = 0;
    for (Index i = 0; i < share; ++i) own += histogram[digit - i];
    std::int32_t so_far = own;  // with what the lanes before have, which is larger
    for (int by = 1; by < warp_size; by *= 2) {
      const std::int32_t before = __shfl_up_sync(all_lanes, so_far, by);
      if (int(threadIdx.x) >= by) so_far += before;
    }
    Index above = so_far - own;
    if (above < wanted && wanted <= so_far) {
      while (above + histogram[digit] < wanted) above += histogram[digit--];
      state[0] = static_cast<std::int32_t>(digit);
      state[1] = static_cast<std::int32_t>(wanted - above);
    }
  }
  __syncthreads();
  return {std::int32_t(state[0]), std::int32_t(state[1])};
}

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
    const Digit at = find_digit(scratch.histogram, SelectScratch::bins, wanted, scratch.state);
    found |= static_cast<std::uint32_t>(at.digit) << shift;
    wanted = at.wanted;
  }
  return {found, wanted};
}

/// Calls take(i, position) for every i that the cut takes, in ascending order of both, and returns
/// how many there are. take() may overwrite the element at `position` with that of i: all threads
/// have read theirs by then. take() receives `load(i)` in place of i.
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

/// Calls f(i, rank(i)) for every i below n, and as often for every thread of the block: with rank 0
/// beyond the end. Four reads are under way at a time.
template <class Rank, class F>
__device__ void for_each_rank(Rank rank, Index n, F f) {
  constexpr int ahead = 4;
  for (Index begin = threadIdx.x; begin - threadIdx.x < n; begin += ahead * blockDim.x) {
    std::uint32_t ranks[ahead];
    for (int j = 0; j < ahead; ++j) {
      const Index i = begin + j * Index(blockDim.x);
      ranks[j] = i < n ? rank(i) : 0;
    }
    for (int j = 0; j < ahead; ++j) f(begin + j * Index(blockDim.x), ranks[j]);
  }
}

/// The K largest by two reads of all ranks: the first counts their highest eleven bits, the second
/// keeps those that come into question, which fit into shared memory unless very many are nearly
/// equal.
struct LargestScratch {
  static constexpr int bits = 11;
  static constexpr Index bins = 1 << bits;
  SelectScratch select;
  Shared<std::int32_t> histogram;
  Shared<std::uint32_t> ranks, items;  // what is kept
  Index capacity;

  /// Room for more than the K that are wanted, as far as the device has it.
  static Index capacity_for(Index K) {
    const Index room = (shared_memory_limit() - bytes(0)) / 8 / 4 * 4;
    return std::min(K + 2 * bins, room);
  }
  static constexpr Index bytes(Index capacity) {
    return SelectScratch::bytes() + shared_room<std::int32_t>(bins) +
           2 * shared_room<std::uint32_t>(capacity);
  }
  __device__ LargestScratch(SharedMemory& memory, Index capacity_)
      : select(memory),
        histogram(memory.take<std::int32_t>(bins)),
        ranks(memory.take<std::uint32_t>(capacity_)),
        items(memory.take<std::uint32_t>(capacity_)),
        capacity(capacity_) {}
};

/// The first read. Returns how many of the ranks are visible.
template <class Rank>
__device__ Index count_ranks(Rank rank, Index n, LargestScratch scratch) {
  for (Index bin = threadIdx.x; bin < LargestScratch::bins; bin += blockDim.x)
    scratch.histogram[bin] = 0;
  __syncthreads();
  for_each_rank(rank, n, [&](Index, std::uint32_t r) {
    if (r != 0) scratch.histogram.atomic_add(r >> (32 - LargestScratch::bits), 1);
  });
  __syncthreads();
  std::int32_t count = 0;
  for (Index bin = threadIdx.x; bin < LargestScratch::bins; bin += blockDim.x)
    count += scratch.histogram[bin];
  return across_block(count, Sum{}, scratch.select.warps);
}

/// The second read, after count_ranks() of the same ranks, which found `visible`. Calls
/// take(i, position) for the min(K, visible) largest, in ascending order of both, and returns how
/// many there are.
template <class Rank, class Take>
__device__ Index take_largest(Rank rank, Index n, Index K, Index visible, LargestScratch scratch,
                              Take take) {
  const auto itself = [](Index i) { return i; };
  if (K == 0) return 0;
  if (visible <= K) return take_cut(Cut{}, rank, itself, n, scratch.select, take);
  const Digit at = find_digit(scratch.histogram, LargestScratch::bins, K, scratch.select.state);
  if (K - at.wanted + scratch.histogram[at.digit] > scratch.capacity)
    return take_cut(find_cut(rank, n, K, scratch.select), rank, itself, n, scratch.select, take);
  Index kept = 0;
  for_each_rank(rank, n, [&](Index i, std::uint32_t r) {
    const bool yes = r != 0 && Index(r >> (32 - LargestScratch::bits)) >= at.digit;
    const Place place = place_among(yes, scratch.select.warps);
    if (yes) {
      scratch.ranks[kept + place.before] = r;
      scratch.items[kept + place.before] = std::uint32_t(i);
    }
    kept += place.total;
  });
  const auto kept_rank = [&](Index i) { return std::uint32_t(scratch.ranks[i]); };
  return take_cut(
      find_cut(kept_rank, kept, K, scratch.select), kept_rank,
      [&](Index i) { return Index(std::uint32_t(scratch.items[i])); }, kept, scratch.select, take);
}

/// The end of a row of `chosen` whose first `taken` places are filled: -1 behind them. `nan`: the
/// first NaN among its S scores, S where there is none.
__device__ inline void finish_row(DeviceView<std::int32_t, 1> chosen, std::int32_t& nan_at,
                                  Index nan, Index S, Index taken) {
  if (threadIdx.x == 0) nan_at = nan == S ? -1 : std::int32_t(nan);
  for (Index i = taken + threadIdx.x; i < chosen.shape[0]; i += blockDim.x) chosen(i) = -1;
}

}  // namespace dsa::cuda::DSA_PLACE
