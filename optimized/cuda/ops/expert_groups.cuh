// optimized/cuda/ops/expert_groups.cuh — the tokens of each expert, side by side.
//
// Choice i of token t is pair t k + i. Pairs are ordered by expert, so that an expert's matrices
// are multiplied by all of its tokens at once. Their answers are kept apart and summed in the order
// of `chosen`: the result does not depend on which block ends first.
#pragma once

#include <algorithm>

#include "optimized/cuda/device/product_tile.cuh"
#include "optimized/cuda/ops/experts.cuh"

namespace dsa::cuda::DSA_PLACE::v2 {

/// Rows [first, end) of Groups::order, all of one expert, product_rows of them or fewer.
struct ExpertTile {
  Index expert, first, end;  // expert -1: no rows
};

struct Groups {
  DeviceView<std::int32_t, 1> order;  // (T k)       by expert, ascending within one
  DeviceView<std::int32_t, 2> tiles;  // (tiles, 3)  ExpertTile

  __host__ __device__ static constexpr Index tiles_of(Index rows) {
    return (rows + product_rows - 1) / product_rows;
  }
  /// However the pairs are divided: every expert that is chosen has one tile that is not full.
  static Index most_tiles(Index pairs, Index E) {
    return std::min(E * tiles_of(pairs), std::min(E, pairs) + pairs / product_rows);
  }
  __device__ ExpertTile tile(Index i) const { return {tiles(i, 0), tiles(i, 1), tiles(i, 2)}; }
  __device__ void set_tile(Index i, ExpertTile tile) const {
    tiles(i, 0) = std::int32_t(tile.expert);
    tiles(i, 1) = std::int32_t(tile.first);
    tiles(i, 2) = std::int32_t(tile.end);
  }
};

/// The second half of experts(): the pairs are grouped.
template <class X>
void grouped_experts(Stream, DeviceView<float, 2> y,  // (T, C)  in and out
                     const ExpertsIn<X>&,
                     DeviceView<X, 3> hidden,       // (T, k, F)  scratch, in the groups' order
                     DeviceView<float, 3> answers,  // (T, k, C)  scratch
                     Groups);

}  // namespace dsa::cuda::DSA_PLACE::v2
