// optimized/cuda/ops/indexer_topk.cuh — the indexer's scores and the selection, in one pass.
//
//   chosen[t,:] = the min(K, visible) keys of largest indexer_scores[t,:], ascending, then -1
//
// Definitions: indexer_scores.cuh and topk_select.cuh, nan_at included. v1 and v2 keep no scores
// beyond a tile of keys, and at most 2 K + 64 candidates for a part of a query's keys: memory is
// O(T K). Where there are few queries, v2 splits the keys of each over several blocks. A last block
// selects among the choices of the parts; the result is that of the whole. v3 keeps the scores of a
// panel of queries, and selects among them by topk_select v3.
#pragma once

#include <string>

#include "optimized/cuda/device/indexer_in.cuh"

namespace dsa::cuda::DSA_PLACE {

/// The number of parts of a query's keys in v2: enough blocks for every multiprocessor.
Index indexer_topk_splits(Index T, Index S);
/// Elements of v2's workspace for `splits` parts.
Index indexer_topk_workspace_of(Index T, Index K, Index splits);
/// Elements of the op's workspace: for panels of full size, of queries that see up to `longest`
/// keys; and the least, for any number of keys, which makes for smaller panels, or v2.
Index indexer_topk_workspace(Index T, Index K, Index longest);
Index indexer_topk_least_workspace(Index T, Index K);

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

namespace v3 {  // scores by indexer_scores v3 or v2's tile, and a read of them; shapes: those of v2
inline constexpr Index panel_rows = 264;  // two blocks on every multiprocessor of an H200

/// Queries of a panel whose scores go into so many elements; 0: too few to be worth the launches.
Index indexer_topk_panel(Index T, Index longest, Index elements);
/// workspace: panel x longest elements.
template <class Row>
void indexer_topk(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                  const IndexerIn<Row>&, Index panel, DeviceView<std::uint32_t, 1> workspace);
}  // namespace v3

template <class Row>
void indexer_topk(Stream, DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                  const IndexerIn<Row>&, DeviceView<std::uint32_t, 1> workspace);

}  // namespace dsa::cuda::DSA_PLACE
