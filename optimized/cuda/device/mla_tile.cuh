// optimized/cuda/device/mla_tile.cuh — 32 keys of an attention in shared memory, as bf16
// columns.
//
// bf16 rows are copied as they are. e4m3 rows are copied as bytes and then widened, without their
// scales: the numbers are exact in bf16, and the scales are applied in fp32, to the scores of a run
// of 128 channels, and to the probabilities by which a run is multiplied.
#pragma once

#include "optimized/cuda/device/rows.cuh"
#include "optimized/cuda/device/tiles.cuh"

namespace dsa::cuda::DSA_PLACE {

inline constexpr Index keys_per_step = 32;

/// The layout of a row of the tile.
template <class T>
struct LatentLayout {
  static constexpr bool scaled = std::is_same_v<T, e4m3>;
  Index R, P;

  /// Runs of channels with a scale each; one without a scale for bf16.
  __host__ __device__ Index runs() const { return scaled ? (R + fp8_run - 1) / fp8_run : 1; }
  /// Column of the first rotary channel. The runs of e4m3 are padded.
  __host__ __device__ Index rope() const { return scaled ? runs() * fp8_run : R; }
  __host__ __device__ Index row_bytes() const { return tile_row_bytes(2 * (rope() + P)); }
  __host__ __device__ Index steps() const { return (2 * (rope() + P) + 31) / 32; }
  __host__ __device__ Index source_bytes() const {
    return scaled ? R + 4 * runs() + 2 * P : 2 * (R + P);
  }
  __host__ __device__ Index raw_row_bytes() const { return tile_row_bytes(source_bytes()); }
  __host__ __device__ Index shared_bytes() const {
    return 2 * keys_per_step * (scaled ? raw_row_bytes() : row_bytes()) +
           (scaled ? keys_per_step * (row_bytes() + 4 * runs()) : 0) + 2 * 4 * keys_per_step;
  }
};

template <class T>
struct LatentTile {
  LatentLayout<T> layout;
  Pages<const T> kv;
  Tile stages;           // two, of the rows as they come
  Tile wide;             // of e4m3: the stage in use, widened
  Shared<float> scales;  // (keys_per_step, runs)
  Shared<float> no_key;  // two stages: 0, -inf where there is no key, NaN where there cannot be one

  __device__ LatentTile(SharedMemory& memory, LatentLayout<T> layout_, Pages<const T> kv_)
      : layout(layout_), kv(kv_) {
    stages = take_tile(memory, 2 * keys_per_step,
                       layout.scaled ? layout.raw_row_bytes() : layout.row_bytes());
    if constexpr (LatentLayout<T>::scaled) {
      wide = take_tile(memory, keys_per_step, layout.row_bytes());
      scales = memory.take<float>(keys_per_step * layout.runs());
    }
    no_key = memory.take<float>(2 * keys_per_step);
  }

  /// The tile whose rows are keys in bf16, and its first row.
  __device__ Tile columns() const { return layout.scaled ? wide : stages; }
  __device__ Index first_row(int stage) const { return layout.scaled ? 0 : stage * keys_per_step; }

  /// Begins to gather keys i ... i+31 of query t as far as they are below `end`: a warp a row.
  template <class Keys>
  __device__ void load(int stage, Keys keys, Index t, Index i, Index end) const {
    const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
    const int warps = int(blockDim.x) / warp_size;
    const bool wide_copy = layout.source_bytes() % 16 == 0;
    for (Index row = warp; row < keys_per_step; row += warps) {
      const Index s = i + row < end ? keys.key(t, i + row) : -1;
      const bool valid = 0 <= s && s < kv.rows;
      copy_row(stages, stage * keys_per_step + row, valid ? kv.row(s).data : nullptr,
               layout.source_bytes(), wide_copy);
      if (lane == 0) no_key[stage * keys_per_step + row] = valid ? 0 : s == -1 ? -INFINITY : NAN;
    }
  }

  /// For e4m3, after the copy has landed: fills `wide` and `scales`.
  __device__ void widen_stage(int stage) const {
    if constexpr (LatentLayout<T>::scaled) {
      const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
      for (Index row = warp; row < keys_per_step; row += int(blockDim.x) / warp_size) {
        for (Index column = lane; column < layout.row_bytes() / 2; column += warp_size)
          store(wide, row, column, column_of(stage, row, column));
        for (Index run = lane; run < layout.runs(); run += warp_size)
          scales[row * layout.runs() + run] =
              float_of(raw<4>(stage * keys_per_step + row, layout.R + 4 * run));
      }
    }
  }
  __device__ float scale(Index key, Index run) const {
    if constexpr (LatentLayout<T>::scaled)
      return scales[key * layout.runs() + run];
    else
      return 1;
  }

  /// A bf16 of a tile.
  __device__ static void store(Tile tile, Index row, Index column, bf16 x) {
    unsigned char* const chunk = tile.chunk(row, column / 8);
    shared_store(reinterpret_cast<bf16*>(chunk) + column % 8, x);
  }

 private:
  template <int bytes>
  __device__ std::uint32_t raw(Index row, Index byte) const {
    std::uint32_t bits = 0;
    for (int i = 0; i < bytes; ++i)
      bits |= std::uint32_t{shared_load(stages.chunk(row, (byte + i) / 16) + (byte + i) % 16)}
              << 8 * i;
    return bits;
  }
  __device__ bf16 column_of(int stage, Index row, Index column) const {
    const Index from = stage * keys_per_step + row;
    if (column < layout.R) return narrow<bf16>(widen(e4m3{std::uint8_t(raw<1>(from, column))}));
    const Index rotary = column - layout.rope();
    if (rotary < 0 || rotary >= layout.P) return {0};
    return {std::uint16_t(raw<2>(from, layout.R + 4 * layout.runs() + 2 * rotary))};
  }
};

}  // namespace dsa::cuda::DSA_PLACE
