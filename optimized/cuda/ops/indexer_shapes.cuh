// optimized/cuda/ops/indexer_shapes.cuh — keys that a query sees, and what the indexer's ops ask of
// the shapes of their inputs.
//
// Apart from indexer_in.cuh, because the host's compiler includes that for models on a device, and
// a row's width needs rows.cuh.
#pragma once

#include <string>

#include "optimized/cuda/device/indexer_in.cuh"
#include "optimized/cuda/device/rows.cuh"
#include "optimized/shared/key_range.hpp"

namespace dsa::cuda::DSA_PLACE {

/// The keys that query t sees, cut to those there are.
template <class Row>
__device__ KeyRange keys_of(const IndexerIn<Row>& in, Index t) {
  KeyRange keys;
  keys.end = clamped(in.visible.end(t), 0, in.k.rows);
  keys.begin = clamped(in.visible.begin(t), 0, keys.end);
  return keys;
}

template <class Row>
void expect_indexer_shapes(const IndexerIn<Row>& in) {
  const Index T = in.q.shape[0], H = in.q.shape[1], D = in.q.shape[2];
  expect_shape("w", in.w, {T, H});
  expect_shape("begin", in.visible.begin, {T});
  expect_shape("end", in.visible.end, {T});
  expect_width("k", in.k, key_width<Row>(D));
}

template <class Row>
void expect_indexer_topk_shapes(DeviceView<std::int32_t, 2> chosen,
                                DeviceView<std::int32_t, 1> nan_at, const IndexerIn<Row>& in,
                                Index elements, DeviceView<std::uint32_t, 1> workspace) {
  const Index T = in.q.shape[0];
  expect_indexer_shapes(in);
  expect_shape("chosen", chosen, {T, chosen.shape[1]});
  expect_shape("nan_at", nan_at, {T});
  require(workspace.shape[0] >= elements, "the workspace of indexer_topk has " +
                                              std::to_string(workspace.shape[0]) +
                                              " elements, expected " + std::to_string(elements));
}

}  // namespace dsa::cuda::DSA_PLACE
