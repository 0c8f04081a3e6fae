#include "optimized/cuda/indexer_scores.cuh"
#include "optimized/cuda/indexer_tile.cuh"
#include "optimized/cuda/indexer_topk.cuh"
#include "optimized/cuda/topk.cuh"
#include "optimized/cuda/topk_select.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

void expect_workspace(DeviceView<std::uint32_t, 1> workspace, Index needed) {
  require(workspace.shape[0] >= needed, "the workspace of indexer_topk has " +
                                            std::to_string(workspace.shape[0]) +
                                            " elements, expected " + std::to_string(needed));
}

}  // namespace

namespace v1 {

Index indexer_topk_workspace(Index T, Index S) { return T * S; }

template <class T>
void indexer_topk(Stream stream, DeviceView<std::int32_t, 2> chosen,
                  DeviceView<std::int32_t, 1> nan_at, DeviceView<const T, 3> q, Pages<const T> k,
                  DeviceView<const float, 2> w, bool relu, Visible visible,
                  DeviceView<std::uint32_t, 1> workspace) {
  const Index T_ = q.shape[0], S = k.rows;
  expect_workspace(workspace, indexer_topk_workspace(T_, S));
  const DeviceView<float, 2> scores{reinterpret_cast<float*>(workspace.data), {T_, S}};
  v1::indexer_scores(stream, scores, q, k, w, relu, visible);
  v1::topk_select(stream, chosen, nan_at, scores);
}

}  // namespace v1

namespace v2 {

__host__ __device__ constexpr Index capacity(Index K) { return 2 * K + keys_a_tile; }

/// The keys of one query that may yet be chosen, in ascending order.
struct Candidates {
  DeviceView<std::uint32_t, 1> ranks, keys;  // (capacity)
  Index K, n = 0;
  std::uint32_t bar = 0;  // a later key is chosen only if its rank is above

  /// Keys [first, first + keys_a_tile), one of each of the first threads: `rank` 0 is none.
  __device__ void add(Index first, std::uint32_t rank, SelectScratch scratch) {
    const bool yes = rank > bar;
    const Place place = place_among(yes, scratch.warps);
    if (yes) {
      ranks(n + place.before) = rank;
      keys(n + place.before) = std::uint32_t(first + threadIdx.x);
    }
    n += place.total;
    __syncthreads();
    if (n + keys_a_tile > ranks.shape[0]) keep_best(scratch);
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

template <class T>
__global__ void __launch_bounds__(indexer_threads)
    topk_kernel(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                DeviceView<const T, 3> q, Pages<const T> k, DeviceView<const float, 2> w, bool relu,
                Visible visible, DeviceView<std::uint32_t, 3> workspace) {
  const Index t = blockIdx.x, K = chosen.shape[1];
  const Index end = clamped(visible.end(t), 0, k.rows), begin = clamped(visible.begin(t), 0, end);
  SharedMemory memory;
  const IndexerTile<T> tile(memory, q, k, relu);
  const SelectScratch scratch(memory);
  Candidates candidates{workspace[t][0], workspace[t][1], K};
  Index nan = k.rows;  // the first that this thread met
  tile.load_query(q, w, t);
  for_each_tile(tile, begin, end, [&](Index first) {
    const Index i = threadIdx.x;
    std::uint32_t rank = 0;
    if (i < keys_a_tile && first + i < end) {
      const float score = tile.score(first, i);
      rank = rank_of(score);
      if (score != score) nan = smaller(nan, first + i);
    }
    if (K > 0) candidates.add(first, rank, scratch);
  });
  nan = across_block(std::int32_t(nan), Minimum{}, scratch.warps);
  if (K > 0 && candidates.n > K) candidates.keep_best(scratch);
  if (threadIdx.x == 0) nan_at(t) = nan == k.rows ? -1 : std::int32_t(nan);
  const Index count = nan == k.rows ? candidates.n : 0;
  for (Index i = threadIdx.x; i < K; i += blockDim.x)
    chosen(t, i) = i < count ? std::int32_t(candidates.keys(i)) : -1;
}

Index indexer_topk_workspace(Index T, Index K) { return T * 2 * capacity(K); }

template <class T>
std::string indexer_topk_refuses(Index H, Index D) {
  return IndexerShapes<T>{H, D, SelectScratch::bytes()}.refuses();
}

template <class T>
void indexer_topk(Stream stream, DeviceView<std::int32_t, 2> chosen,
                  DeviceView<std::int32_t, 1> nan_at, DeviceView<const T, 3> q, Pages<const T> k,
                  DeviceView<const float, 2> w, bool relu, Visible visible,
                  DeviceView<std::uint32_t, 1> workspace) {
  const Index T_ = q.shape[0], K = chosen.shape[1];
  expect_indexer_shapes(q, k, w, visible);
  expect_shape("chosen", chosen, {T_, K});
  expect_shape("nan_at", nan_at, {T_});
  expect_workspace(workspace, indexer_topk_workspace(T_, K));
  const IndexerShapes<T> shapes{q.shape[1], q.shape[2], SelectScratch::bytes()};
  require(shapes.refuses().empty(), "indexer_topk " + shapes.refuses());
  launch(stream, "indexer_topk v2", {grid_of(T_), indexer_threads, shapes.shared_bytes()},
         topk_kernel<T>, chosen, nan_at, q, k, w, relu, visible,
         DeviceView<std::uint32_t, 3>{workspace.data, {T_, 2, capacity(K)}});
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
Index indexer_topk_workspace(Index T_, Index S, Index H, Index D, Index K) {
  return on_tensor_cores<T>(H, D) ? v2::indexer_topk_workspace(T_, K)
                                  : v1::indexer_topk_workspace(T_, S);
}

template <class T>
void indexer_topk(Stream stream, DeviceView<std::int32_t, 2> chosen,
                  DeviceView<std::int32_t, 1> nan_at, DeviceView<const T, 3> q, Pages<const T> k,
                  DeviceView<const float, 2> w, bool relu, Visible visible,
                  DeviceView<std::uint32_t, 1> workspace) {
  if constexpr (!std::is_same_v<T, float>)
    if (on_tensor_cores<T>(q.shape[1], q.shape[2]))
      return v2::indexer_topk(stream, chosen, nan_at, q, k, w, relu, visible, workspace);
  v1::indexer_topk(stream, chosen, nan_at, q, k, w, relu, visible, workspace);
}

#define DSA_INSTANTIATE(space, T)                                                               \
  template void space indexer_topk(                                                             \
      Stream, DeviceView<std::int32_t, 2>, DeviceView<std::int32_t, 1>, DeviceView<const T, 3>, \
      Pages<const T>, DeviceView<const float, 2>, bool, Visible, DeviceView<std::uint32_t, 1>);
DSA_INSTANTIATE(v1::, float)
DSA_INSTANTIATE(v1::, bf16)
DSA_INSTANTIATE(v1::, e4m3)
DSA_INSTANTIATE(v2::, bf16)
DSA_INSTANTIATE(v2::, e4m3)
DSA_INSTANTIATE(, float)
DSA_INSTANTIATE(, bf16)
DSA_INSTANTIATE(, e4m3)
template Index indexer_topk_workspace<float>(Index, Index, Index, Index, Index);
template Index indexer_topk_workspace<bf16>(Index, Index, Index, Index, Index);
template Index indexer_topk_workspace<e4m3>(Index, Index, Index, Index, Index);
template std::string v2::indexer_topk_refuses<bf16>(Index, Index);
template std::string v2::indexer_topk_refuses<e4m3>(Index, Index);

}  // namespace dsa::cuda::DSA_PLACE
