// optimized/cuda/ops/indexer_scores.cuh — how much query t wants to look at key s.
//
//   scores[t,s] = sum_h w[t,h] act( q[t,h,:] . k[s,:] )      for visible s, act = relu or identity
//               = -inf                                       for the others
//
// Definition: reference/ops/indexer_scores.hpp. w carries every scale; an e4m3 key is multiplied by
// its own scale after the sum. T: float, bf16 or e4m3; sums in fp32.
#pragma once

#include <string>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

namespace v1 {  // one thread a score: the reference, transcribed
template <class T>
void indexer_scores(Stream, DeviceView<float, 2> scores,  // (T, S)     out
                    DeviceView<const T, 3> q,             // (T, H, D)
                    Pages<const T> k,                     // (S, D)
                    DeviceView<const float, 2> w,         // (T, H)
                    bool relu, Visible);
}  // namespace v1

namespace v2 {  // one block for a query and 1024 keys, on tensor cores: indexer_tile.cuh
/// Why a shape is not taken; empty where it is. T: bf16 or e4m3.
template <class T>
std::string indexer_scores_refuses(Index H, Index D);
template <class T>
void indexer_scores(Stream, DeviceView<float, 2> scores, DeviceView<const T, 3> q, Pages<const T> k,
                    DeviceView<const float, 2> w, bool relu, Visible);
}  // namespace v2

template <class T>
void indexer_scores(Stream, DeviceView<float, 2> scores,  // (T, S)     out
                    DeviceView<const T, 3> q,             // (T, H, D)
                    Pages<const T> k,                     // (S, D)
                    DeviceView<const float, 2> w,         // (T, H)
                    bool relu, Visible);

}  // namespace dsa::cuda::DSA_PLACE
