// optimized/cuda/indexer_topk.cuh — the indexer's scores and the selection, in one pass.
//
//   chosen[t,:] = the min(K, visible) keys of largest indexer_scores[t,:], ascending, then -1
//
// Definitions: indexer_scores.cuh and topk_select.cuh, nan_at included. Scores are never kept
// beyond a tile of keys; of a query's keys so far, at most 2 K + 64 candidates are: memory is O(T
// K).
#pragma once

#include <string>

#include "optimized/cuda/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// Elements of the workspace.
Index indexer_topk_workspace(Index T, Index K);

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
                  bool relu, Visible, DeviceView<std::uint32_t, 1> workspace);
}  // namespace v2

/// T: float, bf16 or e4m3.
template <class T>
void indexer_topk(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                  DeviceView<const T, 3> q, Pages<const T> k, DeviceView<const float, 2> w,
                  bool relu, Visible, DeviceView<std::uint32_t, 1> workspace);

}  // namespace dsa::cuda::DSA_PLACE
