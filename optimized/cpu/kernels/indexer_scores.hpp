// optimized/cpu/kernels/indexer_scores.hpp — scores of one query against a panel of keys.
//
// A panel of 48 keys is packed once and read by every query of a block: word i of all keys side by
// side, so that one register holds the same channels of several keys, and the sum over the heads
// never leaves the registers. A score is the same bits in whatever panel, lane or block it stands:
// channels are summed in ascending order, then heads in ascending order.
#pragma once

#include <cstddef>

#include "optimized/cpu/kernels/storage.hpp"
#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

constexpr std::int64_t panel_keys = 48;

/// Bytes of a packed query, of a packed panel, and of scratch for packing either.
constexpr std::int64_t index_query_bytes(std::int64_t H, std::int64_t D) {
  return 4 * padded(D) * ((H + 15) / 16 * 16);
}
constexpr std::int64_t index_panel_bytes(std::int64_t D) { return 4 * padded(D) * panel_keys; }
constexpr std::int64_t index_rows_bytes(std::int64_t D) { return 4 * padded(D) * 16; }

/// Heads and channels of the indexer, and how they are kept.
struct IndexShape {
  Storage storage;
  std::int64_t H, D;
};

/// q (H, D) of one query.
using PackIndexQuery = void(std::uint32_t* packed, const std::byte* q, IndexShape,
                            std::byte* scratch);
DSA_DECLARE_IN_EVERY_TIER(PackIndexQuery, pack_index_query)

/// n <= 48 rows of rows.hpp; the lanes behind them are zeros. `scales` (48): the e4m3 keys' own.
using PackIndexKeys = void(std::uint32_t* packed, float* scales, const std::byte* const* rows,
                           std::int64_t n, IndexShape, std::byte* scratch);
DSA_DECLARE_IN_EVERY_TIER(PackIndexKeys, pack_index_keys)

/// One query and a panel of keys.
struct ScorePanelIn {
  const std::uint32_t* q;     // (H, D), packed
  const std::uint32_t* keys;  // (48, D), packed
  const float* scales;        // (48)
  const float* w;             // (H)
  IndexShape shape;
  bool relu;
};

/// scores[i] = scales[i] sum_h w[h] act( q[h] . key[i] ), i < 48.
using ScorePanel = void(float* scores, const ScorePanelIn&);
DSA_DECLARE_IN_EVERY_TIER(ScorePanel, score_panel)

}  // namespace dsa::cpu
