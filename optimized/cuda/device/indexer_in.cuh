// optimized/cuda/device/indexer_in.cuh — inputs of the lightning indexer.
#pragma once

#include <limits>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// Row: float, bf16 or e4m3. w carries every scale; an e4m3 key is multiplied by its own scale
/// after the sum.
template <class Row>
struct IndexerIn {
  DeviceView<const Row, 3> q;    // (T, H, D)
  Pages<const Row> k;            // (S, D)
  DeviceView<const float, 2> w;  // (T, H)
  bool relu;
  KeyRanges visible;                                  // (T)
  Index longest = std::numeric_limits<Index>::max();  // no query sees more keys
};

}  // namespace dsa::cuda::DSA_PLACE
