// reference/ops/visibility.hpp — which keys a query may look at.
//
// The keys are all tokens so far, in order; the queries are the last T of them. Query t sees key
// s if s is not later and of the same document. Padding (document -1) sees and is seen by nobody.
#pragma once

#include <span>

#include "core/tensor.hpp"

namespace dsa::reference {

struct Visibility {
  Index first = 0;                   // how many keys come before query 0
  std::span<const Index> documents;  // of each of the S keys

  Index keys() const { return static_cast<Index>(documents.size()); }
  bool sees(Index t, Index s) const {
    const Index mine = documents[static_cast<std::size_t>(first + t)];
    return s <= first + t && mine >= 0 && documents[static_cast<std::size_t>(s)] == mine;
  }
};

}  // namespace dsa::reference
