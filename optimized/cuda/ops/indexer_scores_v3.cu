// indexer_scores v3, for sm_90a: a block takes a slice of all tiles of 64 keys, query by query; the
// rows of a tile are the m of a wgmma, and 128 (query, head) pairs its n. A warp multiplies its own
// 16 rows of a tile: it copies them by cp.async, widens them into registers, and multiplies these
// with the queries, which lie in shared memory. So no warp waits for another in the loop over
// tiles, but for the four of a warpgroup, which multiply together. The sum over heads then lies in
// a thread and its three neighbours.
//
// A score is computed alike wherever its tile lies in a slice: its bits depend neither on the grid
// nor on the other queries.
#include <algorithm>

#include "optimized/cuda/device/device.cuh"
#include "optimized/cuda/ops/indexer_scores.cuh"
#include "optimized/cuda/ops/indexer_scores_v3_tile.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {
namespace {

/// The tiles of all groups in a row: this block's are [begin, end), and `before` precede `group`.
struct Slice {
  int group;
  Index before, begin, end;
};

/// Every block counts them all: equal slices need no list.
template <int H, class Row>
__device__ Slice slice_of_block(const IndexerIn<Row>& in, const ScoreMemory<Row>& memory) {
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int groups = QueryGroup<H>::count(in);
  const int each = (groups + score_threads - 1) / score_threads;
  const int first = int(smaller(Index{each} * threadIdx.x, groups));
  const int end = int(smaller(Index{first} + each, groups));
  Index own = 0;
  for (int group = first; group < end; ++group) own += QueryGroup<H>(in, group).tiles();
  Index so_far = own;
  for (int by = 1; by < warp_size; by *= 2) {
    const Index earlier = __shfl_up_sync(all_lanes, so_far, by);
    if (lane >= by) so_far += earlier;
  }
  if (lane == warp_size - 1) memory.sums[warp] = so_far;
  if (threadIdx.x == 0) memory.start[0] = groups, memory.start[1] = 0;
  __syncthreads();
  Index before = so_far - own, total = 0;
  for (int w = 0; w < score_threads / warp_size; ++w) {
    if (w == warp) before += total;
    total += memory.sums[w];
  }
  Slice slice{0, 0, total * blockIdx.x / gridDim.x, total * (blockIdx.x + 1) / gridDim.x};
  if (before <= slice.begin && slice.begin < before + own)
    memory.start[0] = first, memory.start[1] = before;
  __syncthreads();
  slice.group = int(memory.start[0]);
  slice.before = memory.start[1];
  return slice;
}

/// What a block does with its slice.
template <int H, class Row>
struct Scorer {
  DeviceView<float, 2> scores;
  const IndexerIn<Row>& in;
  const ScoreMemory<Row>& memory;
  bool of_panel;
  using Ring = KeyRing<Row>;

  /// The first of this warp's keys of a tile.
  __device__ static int key(int tile) {
    return tile * tile_keys + int(threadIdx.x) / warp_size % 4 * warp_keys;
  }
  /// Where they lie. Nothing, behind the last tile.
  __device__ const Row* piece(int tile, int end_tile, int end) const {
    return tile < end_tile ? Ring::piece_at(in.k, key(tile), end - key(tile)) : nullptr;
  }
  __device__ __forceinline__ void fill(Ring& ring, int tile, int end_tile, int end,
                                       const Row* from) const {
    if (tile < end_tile)
      ring.copy(in.k, key(tile), end - key(tile), from);
    else
      ring.copy_nothing();
  }

  /// Tiles [tile, end_tile) of a group's. The loop over a warpgroup's own ones has no barrier.
  __device__ __forceinline__ void run(const QueryGroup<H>& group, int tile, int end_tile) const {
    constexpr int ahead = Ring::slots - 1;
    const int end = group.end;
    Ring ring(memory.keys);
    tile += int(threadIdx.x) / warpgroup_size;
    int filled = tile;
    for (int i = 0; i < ahead; ++i, filled += score_warpgroups)
      fill(ring, filled, end_tile, end, piece(filled, end_tile, end));
    const Row* next = piece(filled, end_tile, end);
    __syncthreads();  // the queries before were multiplied
    load_queries<H>(memory, in, group.first);
    fence_async_proxy();
    __syncthreads();
    const LaneRows<H> rows(scores, in, group.first, of_panel);
#pragma unroll 1
    for (; tile < end_tile; tile += score_warpgroups) {
      KeyFragment a;
      Accumulator<score_columns> products;
      ring.wait();
      const float scale = ring.read(a);
      begin_products<Row>(products, a, memory.q);
      fill(ring, filled, end_tile, end, next);
      filled += score_warpgroups;
      next = piece(filled, end_tile, end);  // a tile ahead: the list of pages takes its time
      wgmma_wait<0>(products, a);
      rows.store(LaneScores<H>(products, memory.w), key(tile) + lane_key(), scale);
    }
    copy_async_wait<0>();
    __syncwarp();  // the slots were read
  }
};

/// -inf where a query sees nothing. Few queries' rows are shared among blocks.
template <class Row>
__device__ void fill_unseen(DeviceView<float, 2> scores, const IndexerIn<Row>& in) {
  const Index T = scores.shape[0], S = scores.shape[1];
  const Index parts = gridDim.x > T ? gridDim.x / T : 1;
  for (Index item = blockIdx.x; item < T * parts; item += gridDim.x) {
    const Index t = item / parts, part = item % parts;
    const Index begin = S * part / parts, end = S * (part + 1) / parts;
    const KeyRange keys = keys_of(in, t);
    const DeviceView<float, 1> row = scores[t];
    for (Index s = begin + threadIdx.x; s < smaller(end, keys.begin); s += score_threads)
      row(s) = -INFINITY;
    for (Index s = clamped(begin, keys.end, end) + threadIdx.x; s < end; s += score_threads)
      row(s) = -INFINITY;
  }
}

template <int H, class Row>
__global__ void __launch_bounds__(score_threads, 1)
    scores_kernel(DeviceView<float, 2> scores, IndexerIn<Row> in, bool of_panel) {
  SharedMemory shared;
  const ScoreMemory<Row> memory(shared);
  if (!of_panel) fill_unseen(scores, in);
  Slice slice = slice_of_block<H>(in, memory);
  const Scorer<H, Row> scorer{scores, in, memory, of_panel};
  for (Index at = slice.begin; at < slice.end; ++slice.group) {
    const QueryGroup<H> group(in, slice.group);
    const Index behind = slice.before + group.tiles();
    if (at < behind) {
      const int tile = group.first_tile + int(at - slice.before);
      const int end = int(smaller(group.end_tile, tile + slice.end - at));
      scorer.run(group, tile, end);
      at += end - tile;
    }
    slice.before = behind;
  }
}

template <int H, class Row>
void launch_scores(Stream stream, DeviceView<float, 2> scores, const IndexerIn<Row>& in,
                   bool of_panel) {
  const Index longest = std::min(in.longest, in.k.rows);
  const Index tiles = QueryGroup<H>::count(in) * ceil_divide(longest + tile_keys, tile_keys);
  const Index useful = std::max<Index>(1, ceil_divide(tiles, score_warpgroups));
  launch(stream, of_panel ? "indexer_scores v3, of a panel" : "indexer_scores v3",
         {grid_of(scores.shape[0] == 0 ? 0 : std::min(useful, multiprocessors())),
          static_cast<unsigned>(score_threads), ScoreMemory<Row>::bytes, true},
         scores_kernel<H, Row>, scores, in, of_panel);
}

template <class Row>
void scores_of(Stream stream, DeviceView<float, 2> scores, const IndexerIn<Row>& in,
               bool of_panel) {
  const Index H = in.q.shape[1];
  const std::string refusal = indexer_scores_refuses(H, in.q.shape[2], in.relu);
  require(refusal.empty(), refusal);
  expect_indexer_shapes(in);
  require(in.q.shape[0] <= 0x7fffffff, "indexer_scores v3 takes fewer than 2^31 queries, got " +
                                           std::to_string(in.q.shape[0]) + "; split the batch");
  if (H == 64) return launch_scores<64>(stream, scores, in, of_panel);
  if (H == 32) return launch_scores<32>(stream, scores, in, of_panel);
  launch_scores<16>(stream, scores, in, of_panel);
}

}  // namespace

std::string indexer_scores_refuses(Index H, Index D, bool relu) {
  if (D != score_channels || (H != 16 && H != 32 && H != 64))
    return "indexer_scores v3 takes 16, 32 or 64 index heads of 128 channels, got " +
           std::to_string(H) + " of " + std::to_string(D);
  if (!relu) return "indexer_scores v3 takes scores with relu, got some without";
  if (!has_hopper_code())
    return "indexer_scores v3 needs a device of compute capability 9.0 and a build for it (90a)";
  return "";
}

template <class Row>
void indexer_scores(Stream stream, DeviceView<float, 2> scores, const IndexerIn<Row>& in) {
  expect_shape("scores", scores, {in.q.shape[0], in.k.rows});
  scores_of(stream, scores, in, false);
}

template <class Row>
void indexer_scores_of_panel(Stream stream, DeviceView<float, 2> scores, const IndexerIn<Row>& in) {
  expect_shape("scores", scores, {in.q.shape[0], std::min(in.longest, in.k.rows)});
  scores_of(stream, scores, in, true);
}

#define DSA_INSTANTIATE(Row)                                                         \
  template void indexer_scores(Stream, DeviceView<float, 2>, const IndexerIn<Row>&); \
  template void indexer_scores_of_panel(Stream, DeviceView<float, 2>, const IndexerIn<Row>&);
DSA_INSTANTIATE(bf16)
DSA_INSTANTIATE(e4m3)

}  // namespace dsa::cuda::DSA_PLACE::v3
