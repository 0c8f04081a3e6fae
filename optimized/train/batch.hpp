// optimized/train/batch.hpp — the rows of one micro-batch.
//
// Documents lie one after the other, and padding is left out: a key is visible to a query where it
// lies between the first row of the query's document and the query itself.
#pragma once

#include <cstdint>
#include <vector>

#include "core/recording.hpp"

namespace dsa::train {

struct Batch {
  std::vector<Token> tokens;         // (T) in [0, V)
  std::vector<Index> positions;      // (T) of the rotary embedding
  std::vector<std::int32_t> begin;   // (T) first row of each token's document
  std::vector<float> target_weight;  // (T) of row t's cross entropy with token t+1; 0 at the end of
                                     //     a document, and where the target is not to be learned
  Index rows() const { return static_cast<Index>(tokens.size()); }

  /// Whether token t+1 belongs to the document of row t.
  bool has_next(Index t) const {
    const auto i = static_cast<std::size_t>(t);
    return i + 1 < tokens.size() && begin[i + 1] == begin[i];
  }
};

}  // namespace dsa::train
