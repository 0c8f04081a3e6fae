// optimized/cuda/ops/topk_select.cuh — the K largest of each row.
//
//   chosen[t,:] = the min(K, visible) subscripts of largest scores[t,:], ascending, then -1
//
// Definition: reference/ops/topk_select.hpp. Total order: value descending, then index ascending;
// -0 = +0; -infinity is invisible. The same bits in every run, for every K and S. A NaN has no
// place in the order: nan_at[t] is the subscript of the first one of a row, whose chosen are then
// -1; or -1.
#pragma once

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

namespace v1 {  // the K-th largest by bisection: 32 times over the row
void topk_select(Stream, DeviceView<std::int32_t, 2> chosen,  // (T, K)  out
                 DeviceView<std::int32_t, 1> nan_at,          // (T)     out
                 DeviceView<const float, 2> scores);          // (T, S)
}  // namespace v1

namespace v2 {  // by radix: twice over the row, seven times if very many scores are nearly equal
void topk_select(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                 DeviceView<const float, 2> scores);
}  // namespace v2

void topk_select(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                 DeviceView<const float, 2> scores);

}  // namespace dsa::cuda::DSA_PLACE
