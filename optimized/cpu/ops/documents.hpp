// optimized/cpu/ops/documents.hpp — the documents of a micro-batch, and blocks of their rows.
#pragma once

#include <algorithm>
#include <vector>

#include "optimized/cpu/kernels/block_products.hpp"
#include "optimized/shared/key_range.hpp"

namespace dsa::cpu {

constexpr Index block_queries = 48;  // whole tiles of sums in every tier

/// Rows [begin, end) of every document. Error: begin[t] is neither t nor begin[t-1].
inline std::vector<KeyRange> documents_of(View<const std::int32_t, 1> begin) {
  std::vector<KeyRange> documents;
  for (Index t = 0; t < begin.shape[0]; ++t) {
    if (begin(t) == t)
      documents.push_back({t, t});
    else if (t == 0 || begin(t) != begin(t - 1))
      throw Error("row " + std::to_string(t) + " begins at row " + std::to_string(begin(t)) +
                  ", expected " + std::to_string(t) +
                  (t == 0 ? "" : " or, as the row before, " + std::to_string(begin(t - 1))) +
                  "; documents lie one after the other");
    documents.back().end = t + 1;
  }
  return documents;
}

/// The longest first: no thread ends alone.
inline void sort_by_length(std::vector<KeyRange>& documents) {
  std::stable_sort(documents.begin(), documents.end(),
                   [](KeyRange a, KeyRange b) { return a.size() > b.size(); });
}

/// What the queries [t, t + m) of a document see of a panel whose first key is s.
struct PanelRanges {
  std::int32_t begin[block_queries] = {}, end[block_queries];

  PanelRanges(Index t, Index m, Index s) {
    for (Index i = 0; i < m; ++i) end[i] = static_cast<std::int32_t>(t + i + 1 - s);
  }
};

constexpr Index panels_of(Index keys) { return (keys + block_keys - 1) / block_keys; }

}  // namespace dsa::cpu
