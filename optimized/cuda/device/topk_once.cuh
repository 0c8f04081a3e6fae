// optimized/cuda/device/topk_once.cuh — the K largest scores of a row by one read of it.
//
//  1. A sample of 4096 scores suggests a bar, which somewhat more than K scores reach.
//  2. One read of the row puts what reaches the bar into a list in shared memory, in any order.
//  3. If the list holds K, the K largest are in it, whatever the sample was. A histogram of the
//     list's own range finds the K-th.
//  4. A bitmap of the row's subscripts, window by window, puts the taken ones into ascending order.
//     Of those equal to the K-th the lowest subscripts are taken, by a second bitmap.
//
// A row whose bar was wrong (too high, or the list too short) is searched itself by steps 3 and 4.
// That is exact for every row, in three to seven reads. Nothing depends on the order of the list.
#pragma once

#include "optimized/cuda/device/topk.cuh"

namespace dsa::cuda::DSA_PLACE {

inline constexpr int once_threads = 512, once_warps = once_threads / warp_size;
inline constexpr int sample_size = 4096;
inline constexpr std::uint32_t least_visible = 0x00800000u, infinite = 0xff800000u;  // ranks

/// The score of a rank that is not 0.
__device__ inline float score_of(std::uint32_t rank) {
  return float_of(rank >> 31 ? rank ^ 0x80000000u : ~rank);
}

/// The place of a row's bar in its sample of 4096: among as many of the row's n scores as lie above
/// it, K are found but for a deviation of six sigma.
__host__ __device__ inline float bar_place(Index K, Index n) {
  const float expected = float(K) * sample_size / float(n);
  return std::floor(expected + 6 * std::sqrt(expected)) + 8;
}

/// Shared memory of a block, which has 512 threads. The sample, the histogram and the bitmaps take
/// turns.
struct OnceScratch {
  static constexpr int window = 131072, words = window / 32, bins = 2048;
  static constexpr Index least_capacity = 5120;  // with it, three blocks share a multiprocessor
  Shared<std::uint32_t> ranks, places;           // the list, in any order: (capacity)
  Shared<std::uint32_t> taken, equal;            // bitmaps: (words)
  Shared<std::uint32_t> sample, histogram;       // (sample_size), (bins): the same memory
  Shared<std::uint32_t> extremes;                // (32)
  Shared<std::int32_t> warps, state;             // (32), (4)
  int capacity;

  /// Entries for the K largest of n: what reaches the bar, but for a deviation of four sigma.
  static Index capacity_for(Index K, Index n) {
    const float place = bar_place(K, std::max<Index>(1, n));
    const double listed = double(place + 4 * std::sqrt(place)) * double(n) / sample_size;
    const Index wanted = Index(std::min(listed, double(n))) + 64;
    return std::max(least_capacity, ceil_divide(wanted, 64) * 64);
  }
  static constexpr Index bytes(Index capacity) {
    return 2 * shared_room<std::uint32_t>(capacity) + 2 * shared_room<std::uint32_t>(words) +
           2 * shared_room<std::uint32_t>(32) + shared_room<std::uint32_t>(4);
  }
  __device__ OnceScratch(SharedMemory& memory, int capacity_)
      : ranks(memory.take<std::uint32_t>(capacity_)),
        places(memory.take<std::uint32_t>(capacity_)),
        taken(memory.take<std::uint32_t>(words)),
        equal(memory.take<std::uint32_t>(words)),
        sample(taken),
        histogram(equal),
        extremes(memory.take<std::uint32_t>(32)),
        warps(memory.take<std::int32_t>(32)),
        state(memory.take<std::int32_t>(4)),
        capacity(capacity_) {
    static_assert(sample_size <= words && bins <= words);
  }
};

/// Visible ranks that a thread, then the block, has met.
struct Extremes {
  std::uint32_t low = ~0u, high = 0;

  __device__ void meet(std::uint32_t rank) {
    if (rank == 0) return;
    low = rank < low ? rank : low;
    high = rank > high ? rank : high;
  }
  __device__ Extremes across(OnceScratch s) const {
    return {across_block(low, Minimum{}, s.extremes), across_block(high, Maximum{}, s.extremes)};
  }
};

/// The sum of what the threads before this one bring, and of what all do.
struct Prefix {
  int before, total;
};
__device__ inline Prefix sums_before(int x, Shared<std::int32_t> warps) {
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  int so_far = x;
  for (int by = 1; by < warp_size; by *= 2) {
    const int before = __shfl_up_sync(all_lanes, so_far, by);
    if (lane >= by) so_far += before;
  }
  __syncthreads();  // warps may be in use from a call before
  if (lane == warp_size - 1) warps[warp] = so_far;
  __syncthreads();
  Prefix sums{so_far - x, 0};
  for (int w = 0; w < once_warps; ++w) {
    if (w == warp) sums.before += sums.total;
    sums.total += warps[w];
  }
  return sums;
}

/// The bin of the wanted-th largest, how many of that bin are wanted, and how many it has.
struct Bin {
  int bin, wanted, count;
};
__device__ inline Bin find_bin(int wanted, OnceScratch s) {
  constexpr int share = OnceScratch::bins / once_threads;
  const int top = OnceScratch::bins - 1 - share * int(threadIdx.x);
  int counts[share], own = 0;
#pragma unroll
  for (int i = 0; i < share; ++i) own += counts[i] = int(std::uint32_t(s.histogram[top - i]));
  int above = sums_before(own, s.warps).before;
  if (above < wanted && wanted <= above + own) {
    Bin at{top, 0, counts[0]};
#pragma unroll
    for (int i = 1; i < share; ++i)
      if (at.bin == top - i + 1 && above + at.count < wanted) {
        above += at.count;
        at = {top - i, 0, counts[i]};
      }
    s.state[0] = at.bin;
    s.state[1] = wanted - above;
    s.state[2] = at.count;
  }
  __syncthreads();
  return {s.state[0], s.state[1], s.state[2]};
}

/// The cut that takes K > 0 of the ranks rank(0) ... rank(n-1) that lie in `range`, of which there
/// are at least K. Eleven bits of the range a read: three reads know the K-th. With fewer `reads`,
/// the cut may take somewhat more.
template <class Rank>
__device__ Cut cut_in(Extremes range, Rank rank, int n, int K, int reads, OnceScratch s) {
  std::uint32_t low = range.low, high = range.high;
  for (;;) {
    const int bits = bit_width(high - low), shift = bits > 11 ? bits - 11 : 0;
    __syncthreads();
    for (int bin = threadIdx.x; bin < OnceScratch::bins; bin += once_threads) s.histogram[bin] = 0;
    __syncthreads();
#pragma unroll 4
    for (int i = threadIdx.x; i < n; i += once_threads) {
      const std::uint32_t r = rank(i);
      if (low <= r && r <= high) s.histogram.atomic_add((r - low) >> shift, 1u);
    }
    __syncthreads();
    const Bin at = find_bin(K, s);
    low += std::uint32_t(at.bin) << shift;
    const std::uint32_t last = low + ((1u << shift) - 1);
    high = last < low || last > high ? high : last;
    K = at.wanted;
    if (at.count == K || (--reads == 0 && shift > 0)) return {low - 1, 0};
    if (shift == 0) return {low, K};
  }
}

/// The scores of subscripts [first, first + n).
struct OnceRow {
  DeviceView<const float, 1> scores;
  int first;

  __device__ int n() const { return int(scores.shape[0]); }
};

/// The lowest rank that goes into the list, from a sample of 512 evenly spaced pieces of 32 bytes.
/// 0: the list would be too short for what reaches the bar, or the row for a sample.
__device__ inline std::uint32_t bar_of(OnceRow row, int K, OnceScratch s) {
  constexpr int share = sample_size / once_threads, pieces = sample_size / 8;
  const float place = bar_place(K, row.n());
  if (place >= sample_size || place * float(row.n()) > float(s.capacity) * sample_size) return 0;
  float scores[share];
#pragma unroll
  for (int i = 0; i < share; ++i) {
    const int piece = (i * once_threads + int(threadIdx.x)) / 8;
    const int at = int(std::int64_t{row.n() - 8} * piece / pieces);
    const int into_sector = int(reinterpret_cast<std::uintptr_t>(row.scores.data + at) / 4 % 8);
    scores[i] = row.scores((at > into_sector ? at - into_sector : 0) + int(threadIdx.x % 8));
  }
  Extremes met;
  int visible = 0;
#pragma unroll
  for (int i = 0; i < share; ++i) {
    const std::uint32_t rank = scores[i] == scores[i] ? rank_of(scores[i]) : 0;
    s.sample[i * once_threads + int(threadIdx.x)] = rank;
    met.meet(rank);
    visible += rank != 0;
  }
  const Extremes range = met.across(s);
  if (across_block(visible, Sum{}, s.warps) < int(place)) return least_visible;
  const auto rank = [&](int i) { return std::uint32_t(s.sample[i]); };
  const Cut cut = cut_in(range, rank, sample_size, int(place), 2, s);
  return cut.equals > 0 ? cut.rank : cut.rank + 1;
}

}  // namespace dsa::cuda::DSA_PLACE
