// optimized/cuda/ops/mla_v3_launch.cuh — one launch of mla v3, and the join of its ranges.
#pragma once

#include <algorithm>

#include "optimized/cuda/ops/mla_parts.cuh"
#include "optimized/cuda/ops/mla_v3_memory.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {

/// Of two or more, by a grid that begins while the last blocks of the one before are at work.
void join(Stream, MlaOut, const Parts&);

template <class Row, class Keys>
void launch_ranges(Stream stream, MlaOut y, const MlaIn<Row>& in, Keys keys, Index ranges,
                   DeviceView<float, 1> workspace,
                   void (*kernel)(MlaOut, MlaIn<Row>, Keys, float, Work)) {
  const Index T = y.out.shape[0], N = y.out.shape[1];
  const std::string refusal = mla_refuses(y.out.shape[2], in.q.shape[2] - y.out.shape[2], in.scale);
  require(refusal.empty(), refusal);
  const Index head_blocks = ceil_divide(N, block_heads), items = T * head_blocks * ranges;
  require(items <= 0x7fffffff, "mla v3 takes fewer than 2^31 blocks of 64 heads, got " +
                                   std::to_string(items) + "; split the batch");
  const Parts parts = parts_of(y, ranges, workspace, "mla v3");
  const MlaOut of_ranges{{parts.out.data, {ranges * T, N, R}}, {parts.lse.data, {ranges * T, N}}};
  launch(stream, "mla v3",
         {grid_of(std::min(items, multiprocessors())), static_cast<unsigned>(threads<Row>),
          Memory::bytes, true},
         kernel, of_ranges, in, keys, static_cast<float>(in.scale * 1.4426950408889634),
         Work{static_cast<int>(T), static_cast<int>(head_blocks), static_cast<int>(ranges)});
  if (ranges > 1) join(stream, y, parts);
}

}  // namespace dsa::cuda::DSA_PLACE::v3
