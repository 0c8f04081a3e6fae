// optimized/cpu/kernels/latent_attention.hpp — some heads of one query against a chunk of keys.
//
// In expanded form a head has keys of its own, which its queries share: there, "heads" are queries
// of one head, and each may see another range of the chunk.
//
// Attention is computed a chunk of at most 128 keys at a time. A chunk gives for every head the
// largest score m, the sum l of exp(score - m) and the sum of exp(score - m) times the latent rows
// (unnormalised). Chunks are then added up in ascending order, each by itself a function of its
// keys only: who computes a chunk, and when, does not matter to the bits.
//
// Registers hold the same channels of several heads where scores are summed (a key's channels are
// broadcast from its row), and several channels of one head where rows are summed. With pairs of
// bf16 the weights exp(score - m) are rounded to bf16 before they multiply rows; l is not.
#pragma once

#include <cstddef>

#include "optimized/cpu/kernels/storage.hpp"
#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

constexpr std::int64_t chunk_keys = 128;
constexpr std::int64_t heads_at_once = 64;  // at most

/// Rows of a chunk: R latent channels, P rotary ones, and how they are kept.
struct LatentShape {
  Storage storage;
  std::int64_t R, P;
};

/// A row: the channels that queries are multiplied with, and the number of values that it begins
/// with. A latent row has 0, R+P and R.
struct ChunkShape {
  Storage storage;
  std::int64_t key_first, key_channels, value_channels;
};

/// The sums of some heads over some keys.
struct Partial {
  float*
      out;  // (heads, values): of exp(score - m) times a value. Of a chunk: (heads, padded(values))
  float* m;  // (heads): the largest score
  float* l;  // (heads): the sum of exp(score - m)
};

/// The heads of one query, and a chunk of rows made ready. 1 <= n <= 128, 1 <= heads <= 64.
struct ChunkIn {
  const std::uint32_t* q;        // (heads, key channels), packed
  const std::byte* const* rows;  // (n)
  std::int64_t n;
  const std::int32_t* begin = nullptr;  // (64): head h sees rows [begin[h], end[h]);
  const std::int32_t* end = nullptr;    // (64)  null: every head sees all rows
  float scale;
  ChunkShape shape;
  std::int64_t heads;
};

/// Bytes for the heads of one query packed; for the rows of a chunk widened; for scratch of a
/// chunk.
constexpr std::int64_t latent_query_bytes(std::int64_t heads, std::int64_t R, std::int64_t P) {
  return 4 * padded(R + P) * ((heads + 15) / 16 * 16);
}
constexpr std::int64_t latent_rows_bytes(std::int64_t R, std::int64_t P) {
  return 4 * padded(R + P) * chunk_keys;
}
constexpr std::int64_t latent_chunk_bytes = 4 * chunk_keys * (16 + heads_at_once + 32);

/// q (heads, R+P), float or bf16, a head every `stride` bytes.
/// `scratch`: a row of padded(R+P) floats.
using PackLatentQuery = void(std::uint32_t* packed, const std::byte* q, std::int64_t stride,
                             LatentShape, std::int64_t heads, std::byte* scratch);
DSA_DECLARE_IN_EVERY_TIER(PackLatentQuery, pack_latent_query)

/// Makes n rows ready: replaces rows[i] where it must be widened, into `widened`.
using WidenLatentRows = void(const std::byte** rows, std::int64_t n, LatentShape,
                             std::byte* widened);
DSA_DECLARE_IN_EVERY_TIER(WidenLatentRows, widen_latent_rows)

/// An e4m3 row as R+P bf16, value times scale rounded: what widen_latent_rows makes of it.
using LatentRowAsBf16 = void(std::uint16_t* to, const std::byte* row, LatentShape);
DSA_DECLARE_IN_EVERY_TIER(LatentRowAsBf16, latent_row_as_bf16)

/// A row that a head does not see has weight 0 for it, which a value that is no finite number turns
/// into NaN. `scratch`: latent_chunk_bytes.
using AttendChunk = void(Partial, const ChunkIn&, std::byte* scratch);
DSA_DECLARE_IN_EVERY_TIER(AttendChunk, attend_chunk)

/// Adds a chunk of R values to the sums so far; the first one is copied.
using AddChunk = void(Partial sums, Partial chunk, bool first, std::int64_t heads, std::int64_t R);
DSA_DECLARE_IN_EVERY_TIER(AddChunk, add_chunk)

}  // namespace dsa::cpu
