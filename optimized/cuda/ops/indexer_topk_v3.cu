// indexer_topk v3: the scores of a panel of queries, the choice among them, then the next panel.
// The scores are those of indexer_scores v3 where it takes the shape, else of v2's tile.
#include <algorithm>

#include "optimized/cuda/device/indexer_tile.cuh"
#include "optimized/cuda/ops/indexer_scores.cuh"
#include "optimized/cuda/ops/indexer_shapes.cuh"
#include "optimized/cuda/ops/indexer_topk.cuh"
#include "optimized/cuda/ops/topk_select.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {
namespace {

constexpr Index most_panels = 64;
constexpr Index tiles_per_block = 16;

/// Column i: the i-th visible key of the query. Nothing is written behind the last one.
template <class Row>
__global__ void __launch_bounds__(indexer_threads)
    scores_kernel(DeviceView<float, 2> scores, IndexerIn<Row> in) {
  const Index t = blockIdx.x;
  const KeyRange keys = keys_of(in, t);
  const Index begin = keys.begin + blockIdx.y * tiles_per_block * keys_per_tile;
  const Index end = smaller(keys.end, begin + tiles_per_block * keys_per_tile);
  if (begin >= end) return;
  SharedMemory memory;
  const IndexerTile<Row> tile(memory, in);
  tile.load_query(in, t);
  for_each_tile(tile, begin, end, [&](Index first) {
    const Index i = threadIdx.x;
    if (i < keys_per_tile && first + i < end)
      scores(t, first + i - keys.begin) = tile.score(first, i);
  });
}

template <class Row>
IndexerIn<Row> queries_of(IndexerIn<Row> in, Index first, Index n) {
  in.q = rows(in.q, first, first + n);
  in.w = rows(in.w, first, first + n);
  in.visible = {rows(in.visible.begin, first, first + n), rows(in.visible.end, first, first + n)};
  return in;
}

/// Column i: the i-th visible key of the query.
template <class Row>
void scores_of_panel(Stream stream, DeviceView<float, 2> scores, const IndexerIn<Row>& in) {
  const IndexerShapes<Row> shapes{in.q.shape[1], in.q.shape[2]};
  if (indexer_scores_refuses(shapes.H, shapes.D, in.relu).empty())
    return indexer_scores_of_panel(stream, scores, in);
  require(shapes.refuses().empty(), "indexer_topk " + shapes.refuses());
  launch(stream, "indexer_topk v3",
         {grid_of(scores.shape[0], ceil_divide(scores.shape[1], tiles_per_block * keys_per_tile)),
          indexer_threads, shapes.shared_bytes()},
         scores_kernel<Row>, scores, in);
}

}  // namespace

Index indexer_topk_panel(Index T, Index longest, Index elements) {
  const Index rows = std::min({T, panel_rows, elements / std::max<Index>(1, longest)});
  return rows * most_panels >= T ? rows : 0;
}

template <class Row>
void indexer_topk(Stream stream, DeviceView<std::int32_t, 2> chosen,
                  DeviceView<std::int32_t, 1> nan_at, const IndexerIn<Row>& in, Index panel,
                  DeviceView<std::uint32_t, 1> workspace) {
  const Index T = in.q.shape[0], S = in.k.rows, longest = std::min(in.longest, S);
  expect_indexer_topk_shapes(chosen, nan_at, in, std::min(T, panel) * longest, workspace);
  auto* const space = reinterpret_cast<float*>(workspace.data);
  for (Index first = 0; first < T; first += panel) {
    const Index n = std::min(panel, T - first);
    const DeviceView<float, 2> scores{space, {n, longest}};
    const IndexerIn<Row> queries = queries_of(in, first, n);
    scores_of_panel(stream, scores, queries);
    topk_of_panel(stream, rows(chosen, first, first + n), rows(nan_at, first, first + n), scores,
                  queries.visible, S);
  }
}

template void indexer_topk(Stream, DeviceView<std::int32_t, 2>, DeviceView<std::int32_t, 1>,
                           const IndexerIn<bf16>&, Index, DeviceView<std::uint32_t, 1>);
template void indexer_topk(Stream, DeviceView<std::int32_t, 2>, DeviceView<std::int32_t, 1>,
                           const IndexerIn<e4m3>&, Index, DeviceView<std::uint32_t, 1>);

}  // namespace dsa::cuda::DSA_PLACE::v3
