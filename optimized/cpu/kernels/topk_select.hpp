// optimized/cpu/kernels/topk_select.hpp — the K largest of scores that come one after another.
//
// Candidates are kept in ascending order of their index, up to candidate_capacity(K) of them. When
// they are many, the K largest stay and the threshold rises to a key that the K held all reach.
//
// Invariant: at least K scores come before every score that is at or below the raised threshold.
// So only scores strictly above it are taken. (The order is by value, descending, then by index.)
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// Floats as integers of the same order; -0 as +0.
struct Candidates {
  std::int32_t* keys;
  std::int32_t* indices;
  std::int64_t count;
  std::int32_t threshold;
};

/// The key of -infinity: the threshold to begin with, as -infinity is never chosen.
constexpr std::int32_t lowest_key = static_cast<std::int32_t>(0x807fffffu);

constexpr std::int64_t candidate_capacity(std::int64_t K) { return (2 * K + 319) / 64 * 64; }

/// Offers scores[i] with index first + i, i < n, to candidates that all have smaller indices.
/// Returns the i of the first NaN, where it stops, or -1.
using OfferScores = std::int64_t(Candidates&, const float* scores, std::int64_t n,
                                 std::int32_t first, std::int64_t K);
DSA_DECLARE_IN_EVERY_TIER(OfferScores, offer_scores)

/// Leaves the min(K, count) largest.
using KeepLargest = void(Candidates&, std::int64_t K);
DSA_DECLARE_IN_EVERY_TIER(KeepLargest, keep_largest)

}  // namespace dsa::cpu
