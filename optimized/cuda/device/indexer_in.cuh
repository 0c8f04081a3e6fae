// optimized/cuda/device/indexer_in.cuh — inputs of the lightning indexer.
#pragma once

#include <limits>

#include "optimized/cuda/device/rows.cuh"

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

template <class Row>
void expect_indexer_shapes(const IndexerIn<Row>& in) {
  const Index T = in.q.shape[0], H = in.q.shape[1], D = in.q.shape[2];
  expect_shape("w", in.w, {T, H});
  expect_shape("begin", in.visible.begin, {T});
  expect_shape("end", in.visible.end, {T});
  expect_width("k", in.k, key_width<Row>(D));
}

}  // namespace dsa::cuda::DSA_PLACE
