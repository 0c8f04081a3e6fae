// optimized/cpu/ops/visible.hpp — which keys a query may look at: a range of rows of the cache.
//
// Causality, documents packed into one sequence and padding on either side all leave every query
// one contiguous range [begin, end) of keys; an empty range is a query that sees nothing
// (padding). DeepGEMM's cu_seq_len_k_start and cu_seq_len_k_end are the same two arrays.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"

namespace dsa::cpu {

struct Visible {
  View<const std::int32_t, 1> begin, end;  // (T)
};

}  // namespace dsa::cpu
