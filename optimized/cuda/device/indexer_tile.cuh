// optimized/cuda/device/indexer_tile.cuh — the score of one query and one key, and of 64 keys on
// tensor cores.
//
// indexer_scores and indexer_topk share it. In v2 the block's query lies in shared memory as a
// tile of heads, H rounded up to 16, a tile of keys beside it in two stages: one is copied while
// the other is multiplied. Each of four warps multiplies all heads with 16 keys, applies activation
// and weight to the sums in its registers, and adds over the heads.
#pragma once

#include "optimized/cuda/device/indexer_in.cuh"
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/rows.cuh"
#include "optimized/cuda/device/tiles.cuh"

namespace dsa::cuda::DSA_PLACE {

/// relu(NaN) is NaN: a score that is not a number must not become 0.
__device__ inline float activation(float x, bool relu) { return relu && x < 0 ? 0 : x; }

/// The score of one query (H, D) and one key, by one thread.
template <class T>
__device__ float indexer_score(DeviceView<const T, 2> q, DeviceView<const T, 1> key,
                               DeviceView<const float, 1> w, bool relu) {
  const Index H = q.shape[0], D = q.shape[1];
  float sum = 0;
  for (Index h = 0; h < H; ++h) {
    const DeviceView<const T, 1> head = q[h];
    float dot = 0;
    for (Index d = 0; d < D; ++d) dot += widen(head(d)) * widen(key(d));
    sum += w(h) * activation(dot, relu);
  }
  if constexpr (std::is_same_v<T, e4m3>) sum *= float_at(key, D);
  return sum;
}

inline constexpr Index keys_per_tile = 64;
inline constexpr int indexer_threads = 128;

template <class T>
struct IndexerShapes {
  Index H, D;
  Index more_bytes = 0;  // of shared memory, that the kernel needs besides

  __host__ __device__ constexpr Index heads() const { return (H + 15) / 16 * 16; }
  __host__ __device__ constexpr Index row_bytes() const {
    return tile_row_bytes(D * Index(sizeof(T)));
  }
  constexpr Index shared_bytes() const {
    return (heads() + 2 * keys_per_tile) * row_bytes() + shared_room<float>(heads()) +
           shared_room<float>(keys_per_tile) + more_bytes;
  }
  std::string refuses() const {
    if (D * Index(sizeof(T)) % 4 != 0)
      return "v2 takes index heads of a multiple of 4 bytes, got " +
             std::to_string(D * Index(sizeof(T)));
    if (shared_bytes() > shared_memory_limit())
      return "v2 needs " + std::to_string(shared_bytes()) + " bytes of shared memory, there are " +
             std::to_string(shared_memory_limit());
    return "";
  }
};

template <class T>
struct IndexerTile {
  IndexerShapes<T> shapes;
  Pages<const T> k;
  bool relu;
  Tile q, keys;             // keys: two stages, one behind the other
  Shared<float> w, scores;  // (heads), (keys_per_tile)

  __device__ IndexerTile(SharedMemory& memory, const IndexerIn<T>& in)
      : shapes{in.q.shape[1], in.q.shape[2]}, k(in.k), relu(in.relu) {
    q = take_tile(memory, shapes.heads(), shapes.row_bytes());
    keys = take_tile(memory, 2 * keys_per_tile, shapes.row_bytes());
    w = memory.take<float>(shapes.heads());
    scores = memory.take<float>(keys_per_tile);
  }

  /// Warp `first` and every fourth one after it copy a row each.
  __device__ void copy(Tile tile, Index row, const void* from, Index stride) const {
    const Index bytes = shapes.D * Index(sizeof(T));
    const bool wide = bytes % 16 == 0 && stride * Index(sizeof(T)) % 16 == 0;
    copy_row(tile, row, from, bytes, wide);
  }
  __device__ void load_query(const IndexerIn<T>& in, Index t) const {
    const int warp = threadIdx.x / warp_size;
    for (Index h = warp; h < shapes.heads(); h += indexer_threads / warp_size)
      copy(q, h, h < shapes.H ? &in.q(t, h, 0) : nullptr, shapes.D);
    for (Index h = threadIdx.x; h < shapes.heads(); h += indexer_threads)
      w[h] = h < shapes.H ? in.w(t, h) : 0;
  }
  /// Keys [first, first + 64) as far as they are below `end`.
  __device__ void load_keys(int stage, Index first, Index end) const {
    const int warp = threadIdx.x / warp_size;
    for (Index i = warp; i < keys_per_tile; i += indexer_threads / warp_size)
      copy(keys, stage * keys_per_tile + i, first + i < end ? k.row(first + i).data : nullptr,
           k.width);
  }

  /// Fills `scores`, without the scales of e4m3 keys. Barriers before and after are the caller's.
  __device__ void score_stage(int stage) const {
    const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
    const Index steps = (shapes.D * Index(sizeof(T)) + 31) / 32;
    float sums[2][2] = {};  // of this lane's heads, for keys 2 (lane % 4) + 0, 1 of two eights
    for (Index h = 0; h < shapes.heads(); h += 16) {
      float dots[2][4] = {};
      for (Index step = 0; step < steps; ++step) {
        const RowFragment<T> rows = load_rows<T>(q, h, step);
        ColumnFragment<T> columns[2];
        load_columns(columns, keys, stage * keys_per_tile + 16 * warp, step);
        for (int n = 0; n < 2; ++n) multiply(dots[n], rows, columns[n]);
      }
      const float upper = w[h + lane / 4], lower = w[h + lane / 4 + 8];
      for (int n = 0; n < 2; ++n)
        for (int i = 0; i < 2; ++i)
          sums[n][i] +=
              upper * activation(dots[n][i], relu) + lower * activation(dots[n][2 + i], relu);
    }
    for (int n = 0; n < 2; ++n)
      for (int i = 0; i < 2; ++i) {
        for (int bit = 4; bit < warp_size; bit *= 2)
          sums[n][i] += __shfl_xor_sync(all_lanes, sums[n][i], bit);
        if (lane < 4) scores[16 * warp + 8 * n + 2 * lane + i] = sums[n][i];
      }
  }

  /// The score of key `first + i`, finished.
  __device__ float score(Index first, Index i) const {
    if constexpr (std::is_same_v<T, e4m3>)
      return scores[i] * float_at(k.row(first + i), shapes.D);
    else
      return scores[i];
  }
};

/// Calls f(first) for every tile of keys [begin, end), when its scores have been computed.
template <class T, class F>
__device__ void for_each_tile(const IndexerTile<T>& tile, Index begin, Index end, F f) {
  if (begin < end) tile.load_keys(0, begin, end);
  copy_async_commit();
  int stage = 0;
  for (Index first = begin; first < end; first += keys_per_tile, stage = 1 - stage) {
    if (first + keys_per_tile < end) tile.load_keys(1 - stage, first + keys_per_tile, end);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    tile.score_stage(stage);
    __syncthreads();
    f(first);
    __syncthreads();  // before the next scores, and before the stage is filled again
  }
}

}  // namespace dsa::cuda::DSA_PLACE
