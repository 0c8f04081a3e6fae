#include "optimized/cuda/device/indexer_tile.cuh"
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/ops/indexer_scores.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace v1 {

template <class T>
__global__ void scores_kernel(DeviceView<float, 2> scores, DeviceView<const T, 3> q,
                              Pages<const T> k, DeviceView<const float, 2> w, bool relu,
                              Visible visible) {
  const Index S = k.rows;
  const Index t = blockIdx.x, s = blockIdx.y * Index(blockDim.x) + threadIdx.x;
  if (s >= S) return;
  if (s < visible.begin(t) || s >= visible.end(t)) {
    scores(t, s) = -INFINITY;
    return;
  }
  scores(t, s) = indexer_score(q[t], k.row(s), w[t], relu);
}

template <class T>
void indexer_scores(Stream stream, DeviceView<float, 2> scores, DeviceView<const T, 3> q,
                    Pages<const T> k, DeviceView<const float, 2> w, bool relu, Visible visible) {
  expect_indexer_shapes(q, k, w, visible);
  expect_shape("scores", scores, {q.shape[0], k.rows});
  constexpr int threads = 128;
  launch(stream, "indexer_scores v1", {grid_of(q.shape[0], ceil_divide(k.rows, threads)), threads},
         scores_kernel<T>, scores, q, k, w, relu, visible);
}

}  // namespace v1

namespace v2 {

constexpr Index tiles_per_block = 16;

template <class T>
__global__ void __launch_bounds__(indexer_threads)
    scores_kernel(DeviceView<float, 2> scores, DeviceView<const T, 3> q, Pages<const T> k,
                  DeviceView<const float, 2> w, bool relu, Visible visible) {
  const Index t = blockIdx.x, block = blockIdx.y * tiles_per_block * keys_per_tile;
  const Index block_end = smaller(k.rows, block + tiles_per_block * keys_per_tile);
  const Index begin = clamped(visible.begin(t), block, block_end);
  const Index end = clamped(visible.end(t), begin, block_end);
  SharedMemory memory;
  const IndexerTile<T> tile(memory, q, k, relu);
  tile.load_query(q, w, t);
  for (Index s = block + threadIdx.x; s < block_end; s += indexer_threads)
    if (s < begin || s >= end) scores(t, s) = -INFINITY;
  for_each_tile(tile, begin, end, [&](Index first) {
    const Index i = threadIdx.x;
    if (i < keys_per_tile && first + i < end) scores(t, first + i) = tile.score(first, i);
  });
}

template <class T>
std::string indexer_scores_refuses(Index H, Index D) {
  return IndexerShapes<T>{H, D}.refuses();
}

template <class T>
void indexer_scores(Stream stream, DeviceView<float, 2> scores, DeviceView<const T, 3> q,
                    Pages<const T> k, DeviceView<const float, 2> w, bool relu, Visible visible) {
  expect_indexer_shapes(q, k, w, visible);
  expect_shape("scores", scores, {q.shape[0], k.rows});
  const IndexerShapes<T> shapes{q.shape[1], q.shape[2]};
  require(shapes.refuses().empty(), "indexer_scores " + shapes.refuses());
  launch(stream, "indexer_scores v2",
         {grid_of(q.shape[0], ceil_divide(k.rows, tiles_per_block * keys_per_tile)),
          indexer_threads, shapes.shared_bytes()},
         scores_kernel<T>, scores, q, k, w, relu, visible);
}

}  // namespace v2

template <class T>
void indexer_scores(Stream stream, DeviceView<float, 2> scores, DeviceView<const T, 3> q,
                    Pages<const T> k, DeviceView<const float, 2> w, bool relu, Visible visible) {
  if constexpr (!std::is_same_v<T, float>)
    if (v2::indexer_scores_refuses<T>(q.shape[1], q.shape[2]).empty())
      return v2::indexer_scores(stream, scores, q, k, w, relu, visible);
  v1::indexer_scores(stream, scores, q, k, w, relu, visible);
}

#define DSA_INSTANTIATE(space, T)                                                          \
  template void space indexer_scores(Stream, DeviceView<float, 2>, DeviceView<const T, 3>, \
                                     Pages<const T>, DeviceView<const float, 2>, bool, Visible);
DSA_INSTANTIATE(v1::, float)
DSA_INSTANTIATE(v1::, bf16)
DSA_INSTANTIATE(v1::, e4m3)
DSA_INSTANTIATE(v2::, bf16)
DSA_INSTANTIATE(v2::, e4m3)
DSA_INSTANTIATE(, float)
DSA_INSTANTIATE(, bf16)
DSA_INSTANTIATE(, e4m3)
template std::string v2::indexer_scores_refuses<bf16>(Index, Index);
template std::string v2::indexer_scores_refuses<e4m3>(Index, Index);

}  // namespace dsa::cuda::DSA_PLACE
