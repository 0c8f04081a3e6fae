#include <algorithm>

#include "optimized/cuda/device/indexer_tile.cuh"
#include "optimized/cuda/device/topk.cuh"
#include "optimized/cuda/ops/indexer_topk.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

__host__ __device__ constexpr Index capacity(Index K) { return 2 * K + keys_per_tile; }

/// The keys of one query that may yet be chosen, in ascending order.
struct Candidates {
  DeviceView<std::uint32_t, 1> ranks, keys;  // (capacity)
  Index K, n = 0;
  std::uint32_t bar = 0;  // a later key is chosen only if its rank is above

  /// Keys [first, first + keys_per_tile), one of each of the first threads: `rank` 0 is none.
  __device__ void add(Index first, std::uint32_t rank, SelectScratch scratch) {
    const bool yes = rank > bar;
    const Place place = place_among(yes, scratch.warps);
    if (yes) {
      ranks(n + place.before) = rank;
      keys(n + place.before) = std::uint32_t(first + threadIdx.x);
    }
    n += place.total;
    __syncthreads();
    if (n + keys_per_tile > ranks.shape[0]) keep_best(scratch);
  }

  /// Keeps the K best of more than K. A key that comes later has a higher index: where it is equal
  /// to the weakest that is kept, the total order prefers that one.
  __device__ void keep_best(SelectScratch scratch) {
    struct Pair {
      std::uint32_t rank, key;
    };
    const auto rank = [&](Index i) { return ranks(i); };
    const Cut cut = find_cut(rank, n, K, scratch);
    n = take_cut(
        cut, rank,
        [&](Index i) {
          return Pair{ranks(i), keys(i)};
        },
        n, scratch, [&](Pair pair, Index i) { ranks(i) = pair.rank, keys(i) = pair.key; });
    bar = cut.rank;
    __syncthreads();
  }
};

/// What the blocks of a query leave behind, one for each part of its keys.
struct Parts {
  DeviceView<std::uint32_t, 4> candidates;  // (T, splits, 2, capacity): ranks, keys
  DeviceView<std::int32_t, 3> found;  // (T, splits, 2): how many, at most K; the first NaN or S

  /// Elements. A lone part is not left behind, and needs room for its candidates only.
  static Index elements(Index T, Index K, Index splits) {
    return T * splits * 2 * capacity(K) + (splits > 1 ? T * splits * 2 : 0);
  }
  Parts(DeviceView<std::uint32_t, 1> workspace, Index T, Index K, Index splits)
      : candidates{workspace.data, {T, splits, 2, capacity(K)}},
        found{reinterpret_cast<std::int32_t*>(workspace.data + T * splits * 2 * capacity(K)),
              {splits > 1 ? T : 0, splits, 2}} {}
};

/// What both rungs have in common: one block a query and part of its keys [begin, end). The tile
/// computes the scores of 64 keys [first, ...): for_each_tile(tile, begin, end, f) calls f(first)
/// when it has, tile.score(first, i) is one of them.
template <class Tile>
__device__ void select_keys(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                            const Tile& tile, Index begin, Index end, Index S, Parts parts,
                            SelectScratch scratch) {
  const Index t = blockIdx.x, split = blockIdx.y, splits = gridDim.y, K = chosen.shape[1];
  const Index tiles = end > begin ? (end - begin + keys_per_tile - 1) / keys_per_tile : 0;
  const Index part_begin = begin + tiles * split / splits * keys_per_tile;
  const Index part_end = smaller(end, begin + tiles * (split + 1) / splits * keys_per_tile);
  const DeviceView<std::uint32_t, 2> mine = parts.candidates[t][split];
  Candidates candidates{mine[0], mine[1], K};
  Index nan = S;  // the first that this thread met
  for_each_tile(tile, part_begin, part_end, [&](Index first) {
    const Index i = threadIdx.x;
    std::uint32_t rank = 0;
    if (i < keys_per_tile && first + i < part_end) {
      const float score = tile.score(first, i);
      rank = rank_of(score);
      if (score != score) nan = smaller(nan, first + i);
    }
    if (K > 0) candidates.add(first, rank, scratch);
  });
  nan = across_block(std::int32_t(nan), Minimum{}, scratch.warps);
  if (K > 0 && candidates.n > K) candidates.keep_best(scratch);
  if (splits > 1) {
    if (threadIdx.x > 0) return;
    parts.found(t, split, 0) = std::int32_t(candidates.n);
    parts.found(t, split, 1) = std::int32_t(nan);
    return;
  }
  const Index taken = nan == S ? candidates.n : 0;
  for (Index i = threadIdx.x; i < taken; i += blockDim.x)
    chosen(t, i) = std::int32_t(candidates.keys(i));
  finish_row(chosen[t], nan_at(t), nan, S, taken);
}

template <class T>
void expect_shapes(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                   DeviceView<const T, 3> q, Pages<const T> k, DeviceView<const float, 2> w,
                   Visible visible, Index splits, DeviceView<std::uint32_t, 1> workspace) {
  const Index T_ = q.shape[0], K = chosen.shape[1];
  const Index needed = Parts::elements(T_, K, splits);
  expect_indexer_shapes(q, k, w, visible);
  expect_shape("chosen", chosen, {T_, K});
  expect_shape("nan_at", nan_at, {T_});
  require(workspace.shape[0] >= needed, "the workspace of indexer_topk has " +
                                            std::to_string(workspace.shape[0]) +
                                            " elements, expected " + std::to_string(needed));
}

}  // namespace

Index indexer_topk_splits(Index T, Index S) {
  const Index blocks = 2 * multiprocessors();                        // two find room on each
  const Index useful = std::max<Index>(1, S / (8 * keys_per_tile));  // fewer tiles are overhead
  return std::clamp<Index>(blocks / std::max<Index>(1, T), 1, useful);
}

Index indexer_topk_workspace_of(Index T, Index K, Index splits) {
  return Parts::elements(T, K, splits);
}

Index indexer_topk_workspace(Index T, Index K, Index S) {
  return Parts::elements(T, K, indexer_topk_splits(T, S));
}

namespace v1 {

/// A thread computes the score of its key.
template <class T>
struct ScalarTile {
  DeviceView<const T, 2> q;      // (H, D) of the query
  DeviceView<const float, 1> w;  // (H)
  Pages<const T> k;
  bool relu;

  __device__ float score(Index first, Index i) const {
    return indexer_score(q, k.row(first + i), w, relu);
  }
};

template <class T, class F>
__device__ void for_each_tile(const ScalarTile<T>&, Index begin, Index end, F f) {
  for (Index first = begin; first < end; first += keys_per_tile) f(first);
}

template <class T>
__global__ void topk_kernel(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                            DeviceView<const T, 3> q, Pages<const T> k,
                            DeviceView<const float, 2> w, bool relu, Visible visible, Parts parts) {
  const Index t = blockIdx.x;
  const Index end = clamped(visible.end(t), 0, k.rows), begin = clamped(visible.begin(t), 0, end);
  SharedMemory memory;
  const SelectScratch scratch(memory);
  select_keys(chosen, nan_at, ScalarTile<T>{q[t], w[t], k, relu}, begin, end, k.rows, parts,
              scratch);
}

template <class T>
void indexer_topk(Stream stream, DeviceView<std::int32_t, 2> chosen,
                  DeviceView<std::int32_t, 1> nan_at, DeviceView<const T, 3> q, Pages<const T> k,
                  DeviceView<const float, 2> w, bool relu, Visible visible,
                  DeviceView<std::uint32_t, 1> workspace) {
  expect_shapes(chosen, nan_at, q, k, w, visible, 1, workspace);
  launch(stream, "indexer_topk v1",
         {grid_of(q.shape[0]), int(keys_per_tile), SelectScratch::bytes()}, topk_kernel<T>, chosen,
         nan_at, q, k, w, relu, visible, Parts(workspace, q.shape[0], chosen.shape[1], 1));
}

}  // namespace v1

namespace v2 {

constexpr int merge_threads = 512;

template <class T>
__global__ void __launch_bounds__(indexer_threads)
    topk_kernel(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                DeviceView<const T, 3> q, Pages<const T> k, DeviceView<const float, 2> w, bool relu,
                Visible visible, Parts parts) {
  const Index t = blockIdx.x;
  const Index end = clamped(visible.end(t), 0, k.rows), begin = clamped(visible.begin(t), 0, end);
  SharedMemory memory;
  const IndexerTile<T> tile(memory, q, k, relu);
  const SelectScratch scratch(memory);
  tile.load_query(q, w, t);
  select_keys(chosen, nan_at, tile, begin, end, k.rows, parts, scratch);
}

/// One block a query: the K best of what its parts chose, of which each has at most `most`.
__global__ void __launch_bounds__(merge_threads)
    merge_kernel(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                 Parts parts, Index most, Index S, Index capacity) {
  const Index t = blockIdx.x, splits = parts.found.shape[1];
  const DeviceView<std::uint32_t, 3> candidates = parts.candidates[t];
  const DeviceView<std::int32_t, 2> found = parts.found[t];
  SharedMemory memory;
  const LargestScratch scratch(memory, capacity);
  Index nan = S;
  for (Index split = 0; split < splits; ++split) nan = smaller(nan, found(split, 1));
  const auto rank = [&](Index i) {  // ascending in keys, for parts are
    const std::uint32_t split = std::uint32_t(i) / std::uint32_t(most);
    const Index place = i - split * most;
    return place < found(split, 0) ? candidates(split, 0, place) : 0;
  };
  Index taken = 0;
  if (nan == S) {
    const Index visible = count_ranks(rank, splits * most, scratch);
    taken = take_largest(rank, splits * most, chosen.shape[1], visible, scratch,
                         [&](Index i, Index place) {
                           chosen(t, place) = std::int32_t(candidates(i / most, 1, i % most));
                         });
  }
  finish_row(chosen[t], nan_at(t), nan, S, taken);
}

template <class T>
std::string indexer_topk_refuses(Index H, Index D) {
  return IndexerShapes<T>{H, D, SelectScratch::bytes()}.refuses();
}

template <class T>
void indexer_topk(Stream stream, DeviceView<std::int32_t, 2> chosen,
                  DeviceView<std::int32_t, 1> nan_at, DeviceView<const T, 3> q, Pages<const T> k,
                  DeviceView<const float, 2> w, bool relu, Visible visible, Index splits,
                  DeviceView<std::uint32_t, 1> workspace) {
  expect_shapes(chosen, nan_at, q, k, w, visible, splits, workspace);
  const IndexerShapes<T> shapes{q.shape[1], q.shape[2], SelectScratch::bytes()};
  require(shapes.refuses().empty(), "indexer_topk " + shapes.refuses());
  const Index T_ = q.shape[0], K = chosen.shape[1];
  const Parts parts(workspace, T_, K, splits);
  launch(stream, "indexer_topk v2", {grid_of(T_, splits), indexer_threads, shapes.shared_bytes()},
         topk_kernel<T>, chosen, nan_at, q, k, w, relu, visible, parts);
  if (splits == 1) return;
  const Index tiles = ceil_divide(ceil_divide(k.rows, keys_per_tile), splits);
  const Index most = std::max<Index>(1, std::min(K, tiles * keys_per_tile));
  const Index capacity = LargestScratch::capacity_for(K);
  launch(stream, "indexer_topk v2, merge",
         {grid_of(T_), merge_threads, LargestScratch::bytes(capacity)}, merge_kernel, chosen,
         nan_at, parts, most, k.rows, capacity);
}

}  // namespace v2

namespace {

template <class T>
bool on_tensor_cores(Index H, Index D) {
  if constexpr (std::is_same_v<T, float>)
    return false;
  else
    return v2::indexer_topk_refuses<T>(H, D).empty();
}

}  // namespace

template <class T>
void indexer_topk(Stream stream, DeviceView<std::int32_t, 2> chosen,
                  DeviceView<std::int32_t, 1> nan_at, DeviceView<const T, 3> q, Pages<const T> k,
                  DeviceView<const float, 2> w, bool relu, Visible visible,
                  DeviceView<std::uint32_t, 1> workspace) {
  if constexpr (!std::is_same_v<T, float>)
    if (on_tensor_cores<T>(q.shape[1], q.shape[2]))
      return v2::indexer_topk(stream, chosen, nan_at, q, k, w, relu, visible,
                              indexer_topk_splits(q.shape[0], k.rows), workspace);
  v1::indexer_topk(stream, chosen, nan_at, q, k, w, relu, visible, workspace);
}

#define DSA_INSTANTIATE(space, T, ...)                                                          \
  template void space indexer_topk(                                                             \
      Stream, DeviceView<std::int32_t, 2>, DeviceView<std::int32_t, 1>, DeviceView<const T, 3>, \
      Pages<const T>, DeviceView<const float, 2>, bool, Visible __VA_OPT__(, ) __VA_ARGS__,     \
      DeviceView<std::uint32_t, 1>);
DSA_INSTANTIATE(v1::, float)
DSA_INSTANTIATE(v1::, bf16)
DSA_INSTANTIATE(v1::, e4m3)
DSA_INSTANTIATE(v2::, bf16, Index)
DSA_INSTANTIATE(v2::, e4m3, Index)
DSA_INSTANTIATE(, float)
DSA_INSTANTIATE(, bf16)
DSA_INSTANTIATE(, e4m3)
template std::string v2::indexer_topk_refuses<bf16>(Index, Index);
template std::string v2::indexer_topk_refuses<e4m3>(Index, Index);

}  // namespace dsa::cuda::DSA_PLACE
