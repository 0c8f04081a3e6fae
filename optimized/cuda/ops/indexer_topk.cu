// v1: a thread computes the score of its key. v2: tensor cores, and few queries' keys split over
// several blocks.
#include <algorithm>
#include <limits>

#include "optimized/cuda/device/indexer_tile.cuh"
#include "optimized/cuda/device/topk.cuh"
#include "optimized/cuda/ops/indexer_shapes.cuh"
#include "optimized/cuda/ops/indexer_topk.cuh"
#include "optimized/cuda/ops/topk_select.cuh"

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
        n, scratch,
        [&](Pair pair, Index i) {
          ranks(i) = pair.rank;
          keys(i) = pair.key;
        });
    bar = cut.rank;
    __syncthreads();
  }
};

/// The results of the blocks of a query, one for each part of its keys.
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

/// Common to both versions: one block for a query and a part of its keys. The tile computes the
/// scores of 64 keys [first, ...): for_each_tile(tile, begin, end, f) calls f(first) once it has;
/// tile.score(first, i) is one of them.
template <class Tile>
__device__ void select_keys(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                            const Tile& tile, KeyRange visible, Parts parts,
                            SelectScratch scratch) {
  const Index t = blockIdx.x, split = blockIdx.y, splits = gridDim.y, K = chosen.shape[1];
  const Index begin = visible.begin, end = visible.end, S = tile.k.rows;
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

}  // namespace

Index indexer_topk_splits(Index T, Index S) {
  const Index blocks = 2 * multiprocessors();                        // two find room on each
  const Index useful = std::max<Index>(1, S / (8 * keys_per_tile));  // fewer tiles are overhead
  return std::clamp<Index>(blocks / std::max<Index>(1, T), 1, useful);
}

Index indexer_topk_workspace_of(Index T, Index K, Index splits) {
  return Parts::elements(T, K, splits);
}

Index indexer_topk_least_workspace(Index T, Index K) {
  return Parts::elements(T, K, indexer_topk_splits(T, std::numeric_limits<Index>::max()));
}

Index indexer_topk_workspace(Index T, Index K, Index longest) {
  return std::max(indexer_topk_least_workspace(T, K), std::min(T, v3::panel_rows) * longest);
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

template <class Row>
__global__ void topk_kernel(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                            IndexerIn<Row> in, Parts parts) {
  const Index t = blockIdx.x;
  SharedMemory memory;
  const SelectScratch scratch(memory);
  const ScalarTile<Row> tile{in.q[t], in.w[t], in.k, in.relu};
  select_keys(chosen, nan_at, tile, keys_of(in, t), parts, scratch);
}

template <class Row>
void indexer_topk(Stream stream, DeviceView<std::int32_t, 2> chosen,
                  DeviceView<std::int32_t, 1> nan_at, const IndexerIn<Row>& in,
                  DeviceView<std::uint32_t, 1> workspace) {
  const Index T = in.q.shape[0], K = chosen.shape[1];
  expect_indexer_topk_shapes(chosen, nan_at, in, Parts::elements(in.q.shape[0], chosen.shape[1], 1),
                             workspace);
  launch(stream, "indexer_topk v1", {grid_of(T), int(keys_per_tile), SelectScratch::bytes()},
         topk_kernel<Row>, chosen, nan_at, in, Parts(workspace, T, K, 1));
}

}  // namespace v1

namespace v2 {

constexpr int merge_threads = 512;

template <class Row>
__global__ void __launch_bounds__(indexer_threads)
    topk_kernel(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                IndexerIn<Row> in, Parts parts) {
  const Index t = blockIdx.x;
  SharedMemory memory;
  const IndexerTile<Row> tile(memory, in);
  const SelectScratch scratch(memory);
  tile.load_query(in, t);
  select_keys(chosen, nan_at, tile, keys_of(in, t), parts, scratch);
}

/// One block a query: the K best of the choices of its parts. Each part has at most `most`.
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

template <class Row>
std::string indexer_topk_refuses(Index H, Index D) {
  return IndexerShapes<Row>{H, D, SelectScratch::bytes()}.refuses();
}

template <class Row>
void indexer_topk(Stream stream, DeviceView<std::int32_t, 2> chosen,
                  DeviceView<std::int32_t, 1> nan_at, const IndexerIn<Row>& in, Index splits,
                  DeviceView<std::uint32_t, 1> workspace) {
  expect_indexer_topk_shapes(chosen, nan_at, in,
                             Parts::elements(in.q.shape[0], chosen.shape[1], splits), workspace);
  const IndexerShapes<Row> shapes{in.q.shape[1], in.q.shape[2], SelectScratch::bytes()};
  require(shapes.refuses().empty(), "indexer_topk " + shapes.refuses());
  const Index T = in.q.shape[0], K = chosen.shape[1];
  const Parts parts(workspace, T, K, splits);
  launch(stream, "indexer_topk v2", {grid_of(T, splits), indexer_threads, shapes.shared_bytes()},
         topk_kernel<Row>, chosen, nan_at, in, parts);
  if (splits == 1) return;
  const Index tiles = ceil_divide(ceil_divide(in.k.rows, keys_per_tile), splits);
  const Index most = std::max<Index>(1, std::min(K, tiles * keys_per_tile));
  const Index capacity = LargestScratch::capacity_for(K);
  launch(stream, "indexer_topk v2, merge",
         {grid_of(T), merge_threads, LargestScratch::bytes(capacity)}, merge_kernel, chosen, nan_at,
         parts, most, in.k.rows, capacity);
}

}  // namespace v2

template <class Row>
void indexer_topk(Stream stream, DeviceView<std::int32_t, 2> chosen,
                  DeviceView<std::int32_t, 1> nan_at, const IndexerIn<Row>& in,
                  DeviceView<std::uint32_t, 1> workspace) {
  if constexpr (!std::is_same_v<Row, float>) {
    const Index T = in.q.shape[0], longest = std::min(in.longest, in.k.rows);
    const Index panel = v3::indexer_topk_panel(T, longest, workspace.shape[0]);
    const bool taken = v2::indexer_topk_refuses<Row>(in.q.shape[1], in.q.shape[2]).empty();
    if (taken && panel > 0 && v3::topk_reads_once(chosen.shape[1], longest))
      return v3::indexer_topk(stream, chosen, nan_at, in, panel, workspace);
    if (taken)
      return v2::indexer_topk(stream, chosen, nan_at, in, indexer_topk_splits(T, in.k.rows),
                              workspace);
  }
  v1::indexer_topk(stream, chosen, nan_at, in, workspace);
}

#define DSA_INSTANTIATE(space, Row, ...)                                \
  template void space indexer_topk(                                     \
      Stream, DeviceView<std::int32_t, 2>, DeviceView<std::int32_t, 1>, \
      const IndexerIn<Row>& __VA_OPT__(, ) __VA_ARGS__, DeviceView<std::uint32_t, 1>);
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
