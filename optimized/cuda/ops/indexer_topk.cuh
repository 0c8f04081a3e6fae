// optimized/cuda/ops/indexer_topk.cuh — the indexer's scores and the selection, in one pass.
//
//   chosen[t,:] = the min(K, visible) keys of largest indexer_scores[t,:], ascending, then -1
//
// Definitions: indexer_scores.cuh and topk_select.cuh, nan_at included. Scores are never kept
// beyond a tile of keys; of a part of a query's keys so far, at most 2 K + 64 candidates are:
// memory is O(T K). Where there are few queries, each one's keys are split over several blocks, and
// a last one selects among what every part would have chosen, which is what the whole chooses.
#pragma once

#include <string>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// Into how many parts a query's keys are split by v2: enough blocks for every multiprocessor.
Index indexer_topk_splits(Index T, Index S);
/// Elements of the workspace; of `splits` parts, or of what the op below decides.
Index indexer_topk_workspace_of(Index T, Index K, Index splits);
Index indexer_topk_workspace(Index T, Index K, Index S);

namespace v1 {  // one thread a score
template <class T>
void indexer_topk(Stream, DeviceView<std::int32_t, 2> chosen,  // (T, K)     out
                  DeviceView<std::int32_t, 1> nan_at,          // (T)        out
                  DeviceView<const T, 3> q,                    // (T, H, D)
                  Pages<const T> k,                            // (S, D)
                  DeviceView<const float, 2> w,                // (T, H)
                  bool relu, Visible, DeviceView<std::uint32_t, 1> workspace);
}  // namespace v1

namespace v2 {  // tensor cores
/// Why a shape is not taken; empty where it is. T: bf16 or e4m3.
template <class T>
std::string indexer_topk_refuses(Index H, Index D);
template <class T>
void indexer_topk(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                  DeviceView<const T, 3> q, Pages<const T> k, DeviceView<const float, 2> w,
                  bool relu, Visible, Index splits, DeviceView<std::uint32_t, 1> workspace);
}  // namespace v2

/// T: float, bf16 or e4m3.
template <class T>
void indexer_topk(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                  DeviceView<const T, 3> q, Pages<const T> k, DeviceView<const float, 2> w,
                  bool relu, Visible, DeviceView<std::uint32_t, 1> workspace);

}  // namespace dsa::cuda::DSA_PLACE
