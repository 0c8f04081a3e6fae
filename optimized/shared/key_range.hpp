// optimized/shared/key_range.hpp — which keys a query may look at: a range of rows of the cache.
//
// Causality, documents packed into one sequence and padding on either side all leave every query
// one contiguous range of keys. A query that sees nothing (padding) has an empty one. DeepGEMM's
// cu_seq_len_k_start and cu_seq_len_k_end are the two arrays of KeyRanges.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/tensor.hpp"

namespace dsa {

/// Keys [begin, end).
struct KeyRange {
  Index begin = 0, end = 0;

  Index size() const { return std::max<Index>(0, end - begin); }
  bool empty() const { return begin >= end; }
};

/// The smallest range that holds both; an empty one holds nothing.
inline KeyRange joined(KeyRange a, KeyRange b) {
  if (a.empty()) return b;
  if (b.empty()) return a;
  return {std::min(a.begin, b.begin), std::max(a.end, b.end)};
}

/// The keys that both hold.
inline KeyRange common(KeyRange a, KeyRange b) {
  return {std::max(a.begin, b.begin), std::min(a.end, b.end)};
}

/// The range of every query.
struct KeyRanges {
  View<const std::int32_t, 1> begin, end;  // (T)

  KeyRange operator[](Index t) const { return {begin(t), end(t)}; }
};

}  // namespace dsa
