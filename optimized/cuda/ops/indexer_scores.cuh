// optimized/cuda/ops/indexer_scores.cuh — scores of every query and every key it sees.
//
//   scores[t,s] = sum_h w[t,h] act( q[t,h,:] . k[s,:] )      for visible s, act = relu or identity
//               = -inf                                       for the others
//
// Definition: reference/ops/indexer_scores.hpp. Sums in fp32.
#pragma once

#include <string>

#include "optimized/cuda/device/indexer_in.cuh"

namespace dsa::cuda::DSA_PLACE {

namespace v1 {  // one thread a score: the reference, transcribed
template <class Row>
void indexer_scores(Stream, DeviceView<float, 2> scores,  // (T, S)     out
                    const IndexerIn<Row>&);
}  // namespace v1

namespace v2 {  // one block for a query and 1024 keys, on tensor cores: indexer_tile.cuh
/// Why a shape is not taken; empty where it is. Row: bf16 or e4m3.
template <class Row>
std::string indexer_scores_refuses(Index H, Index D);
template <class Row>
void indexer_scores(Stream, DeviceView<float, 2> scores, const IndexerIn<Row>&);
}  // namespace v2

namespace v3 {  // sm_90a: keys from registers, 128 pairs of query and head at a time, by wgmma
/// Why it is not taken; empty where it is.
std::string indexer_scores_refuses(Index H, Index D, bool relu);
/// Row: bf16 or e4m3.
template <class Row>
void indexer_scores(Stream, DeviceView<float, 2> scores, const IndexerIn<Row>&);
/// (T, min(S, longest)): column i is the i-th visible key of a query. Nothing is written behind the
/// last one.
template <class Row>
void indexer_scores_of_panel(Stream, DeviceView<float, 2> scores, const IndexerIn<Row>&);
}  // namespace v3

template <class Row>
void indexer_scores(Stream, DeviceView<float, 2> scores,  // (T, S)     out
                    const IndexerIn<Row>&);

}  // namespace dsa::cuda::DSA_PLACE
