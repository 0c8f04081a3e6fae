// topk_select v3: topk_once.cuh. A block a row, of whole rows of scores or of a panel's.
#include "optimized/cuda/device/topk_once.cuh"
#include "optimized/cuda/ops/topk_select.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {
namespace {

/// What the read of a row has found.
struct Read {
  int listed;  // scores that reached the bar: more than the capacity, and the list is of no use
  int nan;     // the first NaN, or the row's length
};

/// Puts what is marked of a warp's `n` scores into the list: score i of a lane has subscript
/// place(i).
template <int n, class Place>
__device__ void append(const float (&scores)[n], std::uint32_t mask, Place place, OnceScratch s) {
  const int lane = threadIdx.x % warp_size, own = population(mask);
  int so_far = own;
  for (int by = 1; by < warp_size; by *= 2) {
    const int before = __shfl_up_sync(all_lanes, so_far, by);
    if (lane >= by) so_far += before;
  }
  int at = 0;
  if (lane == warp_size - 1) at = s.state.atomic_add(3, so_far);
  at = __shfl_sync(all_lanes, at, warp_size - 1);
  if (at + __shfl_sync(all_lanes, so_far, warp_size - 1) > s.capacity) return;
  at += so_far - own;
#pragma unroll
  for (int i = 0; i < n; ++i)
    if (mask >> i & 1) {
      s.ranks[at] = rank_of(scores[i]);
      s.places[at++] = std::uint32_t(place(i));
    }
}

/// The one read. Up to three scores lie before the first multiple of 16 bytes, and up to three
/// behind the last: the first warp takes them by themselves.
__device__ Read read_row(OnceRow row, std::uint32_t bar, OnceScratch s) {
  constexpr int ahead = 4;  // 16 bytes each, of a lane
  const float limit = score_of(bar);
  const int n = row.n(), lane = threadIdx.x % warp_size;
  const int before = int(-(reinterpret_cast<std::uintptr_t>(row.scores.data) / 4) & 3);
  const int head = before < n ? before : n, fours = (n - head) / 4;
  const float* const wide = row.scores.data + head;
  int nan = n;
  const auto consider = [&](const auto& scores, auto place) {
    constexpr int count = sizeof scores / sizeof scores[0];
    std::uint32_t mask = 0;
#pragma unroll
    for (int i = 0; i < count; ++i) mask |= std::uint32_t(!(scores[i] < limit)) << i;
    if (!__any_sync(all_lanes, mask != 0)) return;
#pragma unroll
    for (int i = 0; i < count; ++i)
      if (scores[i] != scores[i]) nan = place(i) < nan ? place(i) : nan;
    append(scores, mask, place, s);
  };
  for (int begin = int(threadIdx.x) - lane; begin < fours; begin += ahead * once_threads) {
    float scores[4 * ahead];
#pragma unroll
    for (int j = 0; j < ahead; ++j) {
      const int four = begin + j * once_threads + lane;
      Four<float> x{{-INFINITY, -INFINITY, -INFINITY, -INFINITY}};
      if (four < fours) x = load_four_once(wide + 4 * std::int64_t{four});
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[4 * j + i] = x.at[i];
    }
    consider(scores,
             [&](int i) { return head + 4 * (begin + i / 4 * once_threads + lane) + i % 4; });
  }
  if (threadIdx.x < warp_size) {
    const int place = lane < head ? lane : 4 * fours + lane;
    const bool there = place < n;
    const float scores[1] = {there ? row.scores(place) : -INFINITY};
    consider(scores, [&](int) { return place; });
  }
  nan = across_block(nan, Minimum{}, s.warps);  // and all have appended
  return {s.state[3], nan};
}

/// The extremes of n ranks, how many are visible, and the cut that takes K of them.
template <class Rank>
__device__ Cut cut_of(Rank rank, int n, int K, OnceScratch s) {
  Extremes met;
  int visible = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < n; i += once_threads) {
    const std::uint32_t r = rank(i);
    met.meet(r);
    visible += r != 0;
  }
  const Extremes range = met.across(s);
  if (across_block(visible, Sum{}, s.warps) <= K) return {};
  return cut_in(range, rank, n, K, 3, s);
}

/// Marks the taken of the list, of subscripts [begin, begin + window).
__device__ void mark_listed(Cut cut, int listed, int begin, OnceScratch s) {
  for (int i = threadIdx.x; i < OnceScratch::words; i += once_threads) {
    s.taken[i] = 0;
    s.equal[i] = 0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < listed; i += once_threads) {
    const std::uint32_t rank = s.ranks[i],
                        place = std::uint32_t(s.places[i]) - std::uint32_t(begin);
    if (place >= OnceScratch::window) continue;
    if (rank > cut.rank)
      s.taken.atomic_or(place / 32, 1u << place % 32);
    else if (cut.equals > 0 && rank == cut.rank)
      s.equal.atomic_or(place / 32, 1u << place % 32);
  }
}

/// The same from the row itself.
__device__ void mark_row(Cut cut, OnceRow row, int begin, OnceScratch s) {
  const int lane = threadIdx.x % warp_size;
  for (int word = threadIdx.x / warp_size; word < OnceScratch::words; word += once_warps) {
    const std::uint32_t place = std::uint32_t(begin) + 32u * word + lane;
    const std::uint32_t rank = place < std::uint32_t(row.n()) ? rank_of(row.scores(place)) : 0;
    const unsigned above = __ballot_sync(all_lanes, rank > cut.rank);
    const unsigned equal = __ballot_sync(all_lanes, cut.equals > 0 && rank == cut.rank);
    if (lane != 0) continue;
    s.taken[word] = above;
    s.equal[word] = equal;
  }
}

constexpr int words_each = OnceScratch::words / once_threads;

__device__ int ones_in(const std::uint32_t (&words)[words_each]) {
  int ones = 0;
#pragma unroll
  for (int i = 0; i < words_each; ++i) ones += population(words[i]);
  return ones;
}
/// The thread's neighbouring words of a bitmap.
__device__ void load_words(std::uint32_t (&words)[words_each], Shared<std::uint32_t> bitmap) {
#pragma unroll
  for (int i = 0; i < words_each; i += 4) {
    const auto* from = reinterpret_cast<const Four<std::uint32_t>*>(
        bitmap.address(int(threadIdx.x) * words_each + i));
    const Four<std::uint32_t> four = shared_load(from);
#pragma unroll
    for (int j = 0; j < 4; ++j) words[i + j] = four.at[j];
  }
}
/// Adds to `words` the lowest `wanted` ones of `equal`.
__device__ void add_lowest(std::uint32_t (&words)[words_each],
                           const std::uint32_t (&equal)[words_each], int wanted) {
#pragma unroll
  for (int i = 0; i < words_each; ++i) {
    std::uint32_t left = equal[i];
    for (; wanted > 0 && left != 0; --wanted) {
      words[i] |= left & (0u - left);
      left &= left - 1;
    }
  }
}

/// Writes the taken subscripts in ascending order; mark(begin) makes the bitmaps of a window.
/// Returns how many they are.
template <class Mark>
__device__ int write_taken(DeviceView<std::int32_t, 1> chosen, OnceRow row, Cut cut, Mark mark,
                           OnceScratch s) {
  const int K = int(chosen.shape[0]);
  int written = 0, wanted = int(cut.equals);
  for (std::int64_t begin = 0; begin < row.n() && written < K; begin += OnceScratch::window) {
    __syncthreads();
    mark(int(begin));
    __syncthreads();
    std::uint32_t words[words_each];
    load_words(words, s.taken);
    if (cut.equals > 0) {
      std::uint32_t equal[words_each];
      load_words(equal, s.equal);
      const Prefix ties = sums_before(ones_in(equal), s.warps);
      add_lowest(words, equal, wanted - ties.before);
      wanted -= ties.total;
    }
    const Prefix place = sums_before(ones_in(words), s.warps);
    int at = written + place.before;
#pragma unroll
    for (int i = 0; i < words_each; ++i)
      for (std::uint32_t left = words[i]; left != 0; left &= left - 1)
        chosen(at++) = row.first + int(begin) + 32 * (int(threadIdx.x) * words_each + i) +
                       bit_width(left & (0u - left)) - 1;
    written += place.total;
  }
  return written;
}

/// The choice of a row without NaN among its scores.
__device__ int select(DeviceView<std::int32_t, 1> chosen, OnceRow row, std::uint32_t bar,
                      int listed, OnceScratch s) {
  const int K = int(chosen.shape[0]);
  const bool whole = bar == least_visible;  // the list holds every visible score
  if (bar != 0 && listed <= s.capacity && (listed >= K || whole)) {
    const Cut cut = cut_of([&](int i) { return std::uint32_t(s.ranks[i]); }, listed, K, s);
    return write_taken(
        chosen, row, cut, [&](int begin) { mark_listed(cut, listed, begin, s); }, s);
  }
  const Cut cut = cut_of([&](int i) { return rank_of(row.scores(i)); }, row.n(), K, s);
  return write_taken(
      chosen, row, cut, [&](int begin) { mark_row(cut, row, begin, s); }, s);
}

/// Without `visible`, a row has all subscripts [0, S). With it, column 0 of `scores` is the first
/// visible one, and nothing beyond the last is read.
__global__ void __launch_bounds__(once_threads, 2)
    topk_kernel(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                DeviceView<const float, 2> scores, KeyRanges visible, int S, int capacity) {
  const Index t = blockIdx.x;
  SharedMemory memory;
  const OnceScratch s(memory, capacity);
  OnceRow row{scores[t], 0};
  if (visible.end.data != nullptr) {
    const Index end = clamped(visible.end(t), 0, S);
    row.first = int(clamped(visible.begin(t), 0, end));
    row.scores.shape[0] = smaller(row.scores.shape[0], end - row.first);
  }
  if (threadIdx.x == 0) s.state[3] = 0;
  const int n = row.n(), K = int(chosen.shape[1]);
  const std::uint32_t bar = n <= capacity ? least_visible : bar_of(row, K, s);
  __syncthreads();
  const Read read = read_row(row, bar == 0 ? infinite : bar, s);
  const int taken = read.nan == n && K > 0 ? select(chosen[t], row, bar, read.listed, s) : 0;
  finish_row(chosen[t], nan_at(t), row.first + read.nan, row.first + n, taken);
}

void launch_rows(Stream stream, const char* name, DeviceView<std::int32_t, 2> chosen,
                 DeviceView<std::int32_t, 1> nan_at, DeviceView<const float, 2> scores,
                 KeyRanges visible, Index S) {
  const Index K = chosen.shape[1], longest = scores.shape[1];
  const Index capacity = topk_reads_once(K, longest) ? OnceScratch::capacity_for(K, longest)
                                                     : OnceScratch::least_capacity;
  launch(stream, name, {grid_of(scores.shape[0]), once_threads, OnceScratch::bytes(capacity)},
         topk_kernel, chosen, nan_at, scores, visible, int(S), int(capacity));
}

}  // namespace

bool topk_reads_once(Index K, Index S) {
  return OnceScratch::bytes(OnceScratch::capacity_for(K, S)) <= shared_memory_limit();
}

void topk_select(Stream stream, DeviceView<std::int32_t, 2> chosen,
                 DeviceView<std::int32_t, 1> nan_at, DeviceView<const float, 2> scores) {
  expect_topk_shapes(chosen, nan_at, scores);
  launch_rows(stream, "topk_select v3", chosen, nan_at, scores, {}, scores.shape[1]);
}

void topk_of_panel(Stream stream, DeviceView<std::int32_t, 2> chosen,
                   DeviceView<std::int32_t, 1> nan_at, DeviceView<const float, 2> scores,
                   KeyRanges visible, Index S) {
  expect_topk_shapes(chosen, nan_at, scores);
  launch_rows(stream, "topk_select v3, of a panel", chosen, nan_at, scores, visible, S);
}

}  // namespace dsa::cuda::DSA_PLACE::v3
