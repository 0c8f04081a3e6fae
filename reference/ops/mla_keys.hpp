// reference/ops/mla_keys.hpp — the rows of a selection, as attention reads them.
#pragma once

#include <string>
#include <vector>

#include "core/tensor.hpp"

namespace dsa::reference {

/// Rows of `chosen` speak of T queries and S keys.
inline void expect_keys(View<const Index, 2> chosen, Index T, Index S) {
  expect_shape("chosen", chosen, {T, chosen.shape[1]});
  for (Index s : chosen)
    if (s < -1 || s >= S)
      throw Error("chosen holds key " + std::to_string(s) + ", expected -1 to " +
                  std::to_string(S - 1));
}

/// The keys of one row, without the -1 at its end.
inline std::vector<Index> keys_of(View<const Index, 1> row) {
  std::vector<Index> keys;
  for (Index s : row)
    if (s >= 0) keys.push_back(s);
  return keys;
}

}  // namespace dsa::reference
