// optimized/cuda/ops/indexer_topk.cuh — the indexer's scores and the selection, in one pass.
//
//   chosen[t,:] = the min(K, visible) keys of largest indexer_scores[t,:], ascending, then -1
//
// Definitions: indexer_scores.cuh and topk_select.cuh, nan_at included. Scores are never kept
// beyond a tile of keys, and at most 2 K + 64 candidates are kept for a part of a query's keys:
// memory is O(T K). Where there are few queries, the keys of each are split over several blocks.
// A last block selects among the choices of the parts; the result is that of the whole.
#pragma once

#include <string>

#include "optimized/cuda/device/indexer_in.cuh"

namespace dsa::cuda::DSA_PLACE {

/// The number of parts of a query's keys in v2: enough blocks for every multiprocessor.
Index indexer_topk_splits(Index T, Index S);
/// Elements of the workspace: for `splits` parts, or for as many as the op below chooses.
Index indexer_topk_workspace_of(Index T, Index K, Index splits);
Index indexer_topk_workspace(Index T, Index K, Index S);

namespace v1 {  // one thread a score
template <class Row>
void indexer_topk(Stream, DeviceView<std::int32_t, 2> chosen,  // (T, K)     out
                  DeviceView<std::int32_t, 1> nan_at,          // (T)        out
                  const IndexerIn<Row>&, DeviceView<std::uint32_t, 1> workspace);
}  // namespace v1

namespace v2 {  // tensor cores
/// Why a shape is not taken; empty where it is. Row: bf16 or e4m3.
template <class Row>
std::string indexer_topk_refuses(Index H, Index D);
template <class Row>
void indexer_topk(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                  const IndexerIn<Row>&, Index splits, DeviceView<std::uint32_t, 1> workspace);
}  // namespace v2

template <class Row>
void indexer_topk(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                  const IndexerIn<Row>&, DeviceView<std::uint32_t, 1> workspace);

}  // namespace dsa::cuda::DSA_PLACE
