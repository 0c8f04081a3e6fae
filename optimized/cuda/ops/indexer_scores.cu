// v1: one thread a score. v2: one block for a query and 1024 keys, on tensor cores
// (indexer_tile.cuh). v3: indexer_scores_v3.cu.
#include "optimized/cuda/device/indexer_tile.cuh"
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/ops/indexer_scores.cuh"
#include "optimized/cuda/ops/indexer_shapes.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace v1 {

template <class Row>
__global__ void scores_kernel(DeviceView<float, 2> scores, IndexerIn<Row> in) {
  const Index S = in.k.rows;
  const Index t = blockIdx.x, s = blockIdx.y * Index(blockDim.x) + threadIdx.x;
  if (s >= S) return;
  if (s < in.visible.begin(t) || s >= in.visible.end(t)) {
    scores(t, s) = -INFINITY;
    return;
  }
  scores(t, s) = indexer_score(in.q[t], in.k.row(s), in.w[t], in.relu);
}

template <class Row>
void indexer_scores(Stream stream, DeviceView<float, 2> scores, const IndexerIn<Row>& in) {
  const Index T = in.q.shape[0], S = in.k.rows;
  expect_indexer_shapes(in);
  expect_shape("scores", scores, {T, S});
  constexpr int threads = 128;
  launch(stream, "indexer_scores v1", {grid_of(T, ceil_divide(S, threads)), threads},
         scores_kernel<Row>, scores, in);
}

}  // namespace v1

namespace v2 {

constexpr Index tiles_per_block = 16;

template <class Row>
__global__ void __launch_bounds__(indexer_threads)
    scores_kernel(DeviceView<float, 2> scores, IndexerIn<Row> in) {
  const Index t = blockIdx.x, block = blockIdx.y * tiles_per_block * keys_per_tile;
  const Index block_end = smaller(in.k.rows, block + tiles_per_block * keys_per_tile);
  const Index begin = clamped(in.visible.begin(t), block, block_end);
  const Index end = clamped(in.visible.end(t), begin, block_end);
  SharedMemory memory;
  const IndexerTile<Row> tile(memory, in);
  tile.load_query(in, t);
  for (Index s = block + threadIdx.x; s < block_end; s += indexer_threads)
    if (s < begin || s >= end) scores(t, s) = -INFINITY;
  for_each_tile(tile, begin, end, [&](Index first) {
    const Index i = threadIdx.x;
    if (i < keys_per_tile && first + i < end) scores(t, first + i) = tile.score(first, i);
  });
}

template <class Row>
std::string indexer_scores_refuses(Index H, Index D) {
  return IndexerShapes<Row>{H, D}.refuses();
}

template <class Row>
void indexer_scores(Stream stream, DeviceView<float, 2> scores, const IndexerIn<Row>& in) {
  const Index T = in.q.shape[0], S = in.k.rows;
  expect_indexer_shapes(in);
  expect_shape("scores", scores, {T, S});
  const IndexerShapes<Row> shapes{in.q.shape[1], in.q.shape[2]};
  require(shapes.refuses().empty(), "indexer_scores " + shapes.refuses());
  launch(stream, "indexer_scores v2",
         {grid_of(T, ceil_divide(S, tiles_per_block * keys_per_tile)), indexer_threads,
          shapes.shared_bytes()},
         scores_kernel<Row>, scores, in);
}

}  // namespace v2

template <class Row>
void indexer_scores(Stream stream, DeviceView<float, 2> scores, const IndexerIn<Row>& in) {
  const Index H = in.q.shape[1], D = in.q.shape[2];
  if constexpr (!std::is_same_v<Row, float>) {
    if (v3::indexer_scores_refuses(H, D, in.relu).empty())
      return v3::indexer_scores(stream, scores, in);
    if (v2::indexer_scores_refuses<Row>(H, D).empty())
      return v2::indexer_scores(stream, scores, in);
  }
  v1::indexer_scores(stream, scores, in);
}

#define DSA_INSTANTIATE(space, Row) \
  template void space indexer_scores(Stream, DeviceView<float, 2>, const IndexerIn<Row>&);
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
