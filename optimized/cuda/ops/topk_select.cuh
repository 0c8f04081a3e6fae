// optimized/cuda/ops/topk_select.cuh — the K largest of each row.
//
//   chosen[t,:] = the min(K, visible) subscripts of largest scores[t,:], ascending, then -1
//
// Definition: reference/ops/topk_select.hpp. Total order: value descending, then index ascending;
// -0 = +0; -infinity is invisible. The same bits in every run, for every K and S. A NaN has no
// place in the order: nan_at[t] is the subscript of the first one of a row, whose chosen are then
// -1; or -1.
#pragma once

#include <string>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

inline void expect_topk_shapes(DeviceView<std::int32_t, 2> chosen,
                               DeviceView<std::int32_t, 1> nan_at,
                               DeviceView<const float, 2> scores) {
  const Index T = scores.shape[0];
  expect_shape("chosen", chosen, {T, chosen.shape[1]});
  expect_shape("nan_at", nan_at, {T});
  require(scores.shape[1] <= 0x7fffffff,
          "a row of " + std::to_string(scores.shape[1]) + " scores has subscripts beyond 32 bits");
}

namespace v1 {  // the K-th largest by bisection: 32 times over the row
void topk_select(Stream, DeviceView<std::int32_t, 2> chosen,  // (T, K)  out
                 DeviceView<std::int32_t, 1> nan_at,          // (T)     out
                 DeviceView<const float, 2> scores);          // (T, S)
}  // namespace v1

namespace v2 {  // by radix: twice over the row, seven times if very many scores are nearly equal
void topk_select(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                 DeviceView<const float, 2> scores);
}  // namespace v2

namespace v3 {  // once over the row, by a sample and a list in shared memory; any K and S
/// Whether shared memory has room for the list of an ordinary row. Where it has not, every row is
/// read as often as by v2, or more.
bool topk_reads_once(Index K, Index S);
void topk_select(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                 DeviceView<const float, 2> scores);

/// Of the visible keys of each query, out of S: column 0 of scores is the first that is visible,
/// and as many columns are read as there are visible keys. Subscripts are those of keys.
void topk_of_panel(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                   DeviceView<const float, 2> scores, KeyRanges visible, Index S);
}  // namespace v3

void topk_select(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                 DeviceView<const float, 2> scores);

}  // namespace dsa::cuda::DSA_PLACE
