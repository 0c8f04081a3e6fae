// optimized/cuda/ops/indexer_scores_v3_tile.cuh — queries of indexer_scores v3, the tiles of keys
// that they see, and the sums over heads.
#pragma once

#include "optimized/cuda/ops/indexer_scores_v3_keys.cuh"
#include "optimized/cuda/ops/indexer_shapes.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {

constexpr int score_columns = 128;  // of a product: (query, head) pairs

/// Shared memory of a block.
template <class Row>
struct ScoreMemory {
  Panels<score_columns> q;     // two panels, in the order of the words
  Shared<float> w;             // in the order in which lanes want them
  Shared<Index> sums, start;   // of a warp; the group and what is before it
  Shared<unsigned char> keys;  // every warp's ring

  static constexpr Index bytes =
      2 * Panels<score_columns>::panel_bytes + shared_room<float>(score_columns) +
      shared_room<Index>(score_threads / warp_size) + shared_room<Index>(2) + KeyRing<Row>::bytes;

  __device__ explicit ScoreMemory(SharedMemory& memory)
      : q(take_panels<score_columns>(memory, 2)),
        w(memory.take<float>(score_columns)),
        sums(memory.take<Index>(score_threads / warp_size)),
        start(memory.take<Index>(2)),
        keys(memory.take<unsigned char>(KeyRing<Row>::bytes)) {}
};

/// As many queries as one product takes, from number `first` on, and the tiles of 64 keys that any
/// of them sees.
template <int H>
struct QueryGroup {
  static constexpr int queries = score_columns / H;
  int first, first_tile = 0, end_tile = 0;
  int end = 0;  // of the keys

  template <class Row>
  __device__ QueryGroup(const IndexerIn<Row>& in, int group) : first(group * queries) {
    KeyRange all;
#pragma unroll
    for (int i = 0; i < queries; ++i)
      if (first + i < in.q.shape[0]) {
        const KeyRange keys = keys_of(in, first + i);
        if (keys.begin >= keys.end) continue;
        all.begin = all.end == 0 || keys.begin < all.begin ? keys.begin : all.begin;
        all.end = keys.end > all.end ? keys.end : all.end;
      }
    first_tile = int(all.begin / tile_keys);
    end_tile = int((all.end + tile_keys - 1) / tile_keys);
    end = int(all.end);
  }
  template <class Row>
  __host__ __device__ static int count(const IndexerIn<Row>& in) {
    return int((in.q.shape[0] + queries - 1) / queries);
  }
  __device__ int tiles() const { return end_tile - first_tile; }
};

/// relu(NaN) is NaN.
__device__ inline float relu(float x) {
#ifdef DSA_CUDA_ON_HOST
  return x < 0 ? 0 : x;
#else
  float y;
  asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(x));
  return y;
#endif
}

/// Where a lane finds the weight of a column: those of columns 16 j + 2 c + {0, 1, 8, 9} are
/// neighbours.
__device__ constexpr int place_of_weight(int column) {
  return column / 16 * 16 + column % 8 / 2 * 4 + column / 8 % 2 * 2 + column % 2;
}

/// The columns of a product: the group's queries and weights, and zeros where there are none. The
/// barrier and the proxy fence behind it are the caller's.
template <int H, class Row>
__device__ __forceinline__ void load_queries(const ScoreMemory<Row>& memory,
                                             const IndexerIn<Row>& in, int first_query) {
  constexpr int fours = score_channels / 4;
  for (int i = threadIdx.x; i < score_columns * fours; i += score_threads) {
    const int column = i / fours, t = first_query + column / H;
    const WordPlace at = place_of_four<Row>(i % fours);
    std::uint32_t words[2] = {};
    if (t < in.q.shape[0]) words_of(words, load_four(&in.q(t, column % H, i % fours * 4)));
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int word = at.word + j;  // of channels 16 (word / 2) on, in either half of them
      unsigned char* const chunk = memory.q.chunk_of(word / 8, column, word % 8);
      shared_store(reinterpret_cast<std::uint32_t*>(chunk) + at.c, words[j]);
    }
  }
  for (int column = threadIdx.x; column < score_columns; column += score_threads) {
    const int t = first_query + column / H;
    memory.w[place_of_weight(column)] = t < in.q.shape[0] ? in.w(t, column % H) : 0;
  }
}

/// products = keys q^T of a tile, begun: 64 keys in registers.
template <class Row>
__device__ __forceinline__ void begin_products(Accumulator<score_columns>& products, KeyFragment& a,
                                               const Panels<score_columns>& q) {
  wgmma_fence(products, a);
#pragma unroll
  for (int i = 0; i < score_channels / 16; ++i)
    wgmma<Factor<Row>>(products, a, i, q.by_rows().step(i), i > 0);
  wgmma_commit();
}

/// The scores of a lane: of key lane_key(), for half of the queries, the second half in lanes 2 and
/// 3 of a quad.
template <int H>
struct LaneScores {
  static constexpr int queries = score_columns / H / 2;
  float score[queries];

  /// From products of two keys, and the columns of a quarter of the heads.
  __device__ __forceinline__ LaneScores(const Accumulator<score_columns>& products,
                                        Shared<float> w) {
    const bool second = threadIdx.x % 4 >= 2, lower = threadIdx.x % 2 == 1;
#pragma unroll
    for (int i = 0; i < queries; ++i) {
      float ours[2], theirs[2];
      sum_heads(ours, products, w, i);
      sum_heads(theirs, products, w, queries + i);
      float mine[2];
#pragma unroll
      for (int r = 0; r < 2; ++r)
        mine[r] = (second ? theirs[r] : ours[r]) +
                  __shfl_xor_sync(all_lanes, second ? ours[r] : theirs[r], 2);
      score[i] =
          (lower ? mine[1] : mine[0]) + __shfl_xor_sync(all_lanes, lower ? mine[0] : mine[1], 1);
    }
  }

 private:
  /// Of this lane's columns of a query, for each of its two keys.
  __device__ static __forceinline__ void sum_heads(float (&sums)[2],
                                                   const Accumulator<score_columns>& products,
                                                   Shared<float> w, int query) {
    float s[4] = {};
#pragma unroll
    for (int j = query * (H / 16); j < (query + 1) * (H / 16); ++j) {
      const auto weights = shared_load(
          reinterpret_cast<const Four<float>*>(w.address(16 * j + int(threadIdx.x % 4) * 4)));
#pragma unroll
      for (int i = 0; i < 8; ++i)
        s[i % 4] = fmaf(relu(products[8 * j + i]), weights.at[i / 4 * 2 + i % 2], s[i % 4]);
    }
    sums[0] = s[0] + s[1];
    sums[1] = s[2] + s[3];
  }
};

/// Where a lane puts its scores.
template <int H>
struct LaneRows {
  static constexpr int queries = LaneScores<H>::queries;
  DeviceView<float, 1> row[queries];
  int begin[queries], end[queries], column[queries];  // of visible keys; of key 0

  /// of_panel: column i is the i-th visible key's.
  template <class Row>
  __device__ LaneRows(DeviceView<float, 2> scores, const IndexerIn<Row>& in, int first_query,
                      bool of_panel) {
#pragma unroll
    for (int i = 0; i < queries; ++i) {
      const int t = first_query + int(threadIdx.x % 4) / 2 * queries + i;
      const KeyRange keys = t < in.q.shape[0] ? keys_of(in, t) : KeyRange{};
      begin[i] = int(keys.begin);
      end[i] = int(keys.end);
      column[i] = of_panel ? -begin[i] : 0;
      if (t < in.q.shape[0]) row[i] = scores[t];
    }
  }
  __device__ __forceinline__ void store(const LaneScores<H>& scores, int s, float scale) const {
#pragma unroll
    for (int i = 0; i < queries; ++i)
      if (begin[i] <= s && s < end[i]) row[i](s + column[i]) = scores.score[i] * scale;
  }
};

}  // namespace dsa::cuda::DSA_PLACE::v3
