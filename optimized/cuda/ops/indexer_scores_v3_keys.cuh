// optimized/cuda/ops/indexer_scores_v3_keys.cuh — the rows that a warp of indexer_scores v3
// multiplies: from global memory to the registers of a wgmma.
//
// The order of the 128 channels within a product is free, as long as keys and queries have the
// same. It is chosen so that the words of a row that a thread multiplies are neighbours: lane
// c = 0 ... 3 of a quad takes bytes 32 c to 32 c + 31 of an e4m3 row, and the 16-byte chunks c,
// c + 4, c + 8, c + 12 of a bf16 row. What it multiplies are its words 0 to 15, two f16 or bf16
// each; place_of_four() says which of them four neighbouring channels are.
#pragma once

#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/tiles.cuh"
#include "optimized/cuda/device/wgmma.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {

constexpr int score_channels = 128;  // D
constexpr int warp_keys = 16, tile_keys = 64;
constexpr int score_warpgroups = 3, score_threads = score_warpgroups * warpgroup_size;

template <class Row>
constexpr bool is_e4m3 = std::is_same_v<Row, e4m3>;
/// What the numbers are multiplied as. e4m3 numbers are f16 numbers, and their products exact.
template <class Row>
using Factor = std::conditional_t<is_e4m3<Row>, f16, bf16>;

/// Lane of a quad, and the first of two words.
struct WordPlace {
  int c, word;
};
/// Of channels 4 i to 4 i + 3.
template <class Row>
__device__ constexpr WordPlace place_of_four(int i) {
  if constexpr (is_e4m3<Row>) return {i / 8, i % 8 * 2};
  return {i / 2 % 4, i / 8 * 4 + i % 2 * 2};
}

template <class Row>
__device__ void words_of(std::uint32_t (&words)[2], Four<Row> x) {
  if constexpr (is_e4m3<Row>) {
    const std::uint32_t raw = std::uint32_t{x.at[0].bits} | std::uint32_t{x.at[1].bits} << 8 |
                              std::uint32_t{x.at[2].bits} << 16 | std::uint32_t{x.at[3].bits} << 24;
    for (int i = 0; i < 2; ++i) words[i] = f16_pair(raw, i);
  } else {
    for (int i = 0; i < 2; ++i)
      words[i] = std::uint32_t{x.at[2 * i].bits} | std::uint32_t{x.at[2 * i + 1].bits} << 16;
  }
}

/// Of a warp's 16 keys, the one whose scale and scores this lane has.
__device__ inline int lane_key() {
  const int lane = threadIdx.x % warp_size;
  return lane / 4 + 8 * (lane % 2);
}

/// The operand a of a tile: a product of 16 channels takes four registers.
using KeyFragment = Registers<std::uint32_t, 32>;

/// A warp's slots of 16 rows each. It alone fills and reads them: no barrier but __syncwarp.
template <class Row>
struct KeyRing {
  static constexpr int row_bytes = is_e4m3<Row> ? score_channels + 4 : 2 * score_channels;
  static constexpr int slots = is_e4m3<Row> ? 4 : 3, slot_bytes = warp_keys * row_bytes;
  static constexpr Index bytes = Index{slots} * slot_bytes * score_threads / warp_size;

  Shared<unsigned char> memory;  // of all warps
  int first;                     // byte of this warp's
  int filling = 0, reading = 0;  // slots

  __device__ explicit KeyRing(Shared<unsigned char> memory_)
      : memory(memory_), first(int(threadIdx.x) / warp_size * slots * slot_bytes) {}

  /// Rows of 132 bytes meet no bank conflict where they lie. Those of 256 do, unless the halves of
  /// 128 bytes are exchanged in every second one.
  __device__ unsigned char* at(int slot, int row, int byte) const {
    if constexpr (!is_e4m3<Row>) byte ^= (row & 1) << 6;
    return memory.address(first + slot * slot_bytes + row * row_bytes + byte);
  }
  __device__ static void advance(int& slot) { slot = slot + 1 == slots ? 0 : slot + 1; }

  /// Where keys s to s + 15 lie, if there are as many and they lie one behind the other; else null.
  __device__ static const Row* piece_at(const Pages<const Row>& k, int s, int rows) {
    const bool is_piece = rows >= warp_keys &&
                          std::uint32_t(s) % std::uint32_t(k.page_rows) + warp_keys <= k.page_rows;
    return is_piece ? k.row(s).data : nullptr;
  }
  /// Begins to copy keys s to s + 15, and makes a group of the copies. There are `rows` of them,
  /// perhaps less than 1; the others become zeros. `piece`: piece_at() the same.
  __device__ __forceinline__ void copy(const Pages<const Row>& k, int s, int rows,
                                       const Row* piece) {
    if (piece != nullptr && reinterpret_cast<std::uintptr_t>(piece) % 16 == 0)
      copy_chunks(reinterpret_cast<const unsigned char*>(piece));
    else
      copy_words(k, s, rows);
    copy_async_commit();
    advance(filling);
  }
  __device__ __forceinline__ void copy_nothing() {
    copy_async_commit();
    advance(filling);
  }

  /// Until the next slot is filled.
  __device__ __forceinline__ void wait() const {
    copy_async_wait<slots - 2>();
    __syncwarp();
  }
  /// Its rows, widened. Returns the scale of row lane_key().
  __device__ __forceinline__ float read(KeyFragment& a) {
    const int lane = threadIdx.x % warp_size, c = lane % 4;
    float scale = 1;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
      if constexpr (is_e4m3<Row>) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const std::uint32_t raw = load<std::uint32_t>(row, 32 * c + 4 * j);
          a[4 * j + half] = f16_pair(raw, 0);
          a[4 * j + 2 + half] = f16_pair(raw, 1);
        }
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const auto raw = load<Four<std::uint32_t>>(row, 16 * (c + 4 * j));
#pragma unroll
          for (int i = 0; i < 4; ++i) a[8 * j + 2 * i + half] = raw.at[i];
        }
      }
    }
    if constexpr (is_e4m3<Row>) scale = load<float>(lane_key(), score_channels);
    advance(reading);
    return scale;
  }

 private:
  template <class T>
  __device__ T load(int row, int byte) const {
    return shared_load(reinterpret_cast<const T*>(at(reading, row, byte)));
  }
  /// Rows one behind the other, from a multiple of 16.
  __device__ void copy_chunks(const unsigned char* from) const {
    const int lane = threadIdx.x % warp_size;
#pragma unroll
    for (int i = 0; i < slot_bytes / 16; i += warp_size) {
      const int chunk = i + lane;
      if (i + warp_size <= slot_bytes / 16 || chunk < slot_bytes / 16)
        copy_async_16(
            is_e4m3<Row> ? at(filling, 0, 16 * chunk) : at(filling, chunk / 16, chunk % 16 * 16),
            from + 16 * chunk, true);
    }
  }
  /// Rows wherever they lie, at multiples of 4.
  __device__ void copy_words(const Pages<const Row>& k, int s, int rows) const {
    const int lane = threadIdx.x % warp_size;
#pragma unroll 1
    for (int row = 0; row < warp_keys; ++row) {
      const bool is_key = row < rows;
      const auto* from =
          is_key ? reinterpret_cast<const unsigned char*>(k.row(s + row).data) : nullptr;
      for (int byte = 4 * lane; byte < row_bytes; byte += 4 * warp_size)
        copy_async_4(at(filling, row, byte), is_key ? from + byte : nullptr, is_key);
    }
  }
};

}  // namespace dsa::cuda::DSA_PLACE::v3
