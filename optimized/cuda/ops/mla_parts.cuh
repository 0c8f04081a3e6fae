// optimized/cuda/ops/mla_parts.cuh — the results of parts of every query's keys, and what they are
// together.
#pragma once

#include "optimized/cuda/device/numbers.cuh"
#include "optimized/cuda/ops/mla.cuh"

namespace dsa::cuda::DSA_PLACE {

struct Parts {
  DeviceView<float, 4> out;  // (parts, T, N, R)
  DeviceView<float, 3> lse;  // (parts, T, N)
};

/// One part alone is the outputs themselves. Error: the workspace of the rung `name` is too small.
inline Parts parts_of(MlaOut y, Index parts, DeviceView<float, 1> workspace, const char* name) {
  const Index T = y.out.shape[0], N = y.out.shape[1], R = y.out.shape[2];
  const Index needed = mla_parts_workspace(T, N, R, parts);
  require(workspace.shape[0] >= needed, std::string("the workspace of ") + name + " has " +
                                            std::to_string(workspace.shape[0]) +
                                            " elements, expected " + std::to_string(needed));
  float* const out = parts > 1 ? workspace.data : y.out.data;
  float* const lse = parts > 1 ? workspace.data + parts * T * N * R : y.lse.data;
  return {{out, {parts, T, N, R}}, {lse, {parts, T, N}}};
}

inline constexpr int join_threads = 128;
__host__ __device__ constexpr Index join_shared_bytes(Index parts) {
  return (parts * Index(sizeof(float)) + 15) / 16 * 16;
}

/// By one block for a query and head: parts weighted by what they have of the whole sum, in their
/// order.
__device__ inline void join_parts(MlaOut y, const Parts& parts, Index t, Index n) {
  const Index count = parts.lse.shape[0];
  SharedMemory memory;
  const Shared<float> weights = memory.take<float>(count);
  float largest = -INFINITY, sum = 0;
  for (Index i = 0; i < count; ++i) largest = Maximum{}(largest, parts.lse(i, t, n));
  for (Index i = threadIdx.x; i < count; i += join_threads)
    weights[i] = largest == -INFINITY ? 0 : expf(parts.lse(i, t, n) - largest);
  __syncthreads();
  for (Index i = 0; i < count; ++i) sum += weights[i];
  if (threadIdx.x == 0) y.lse(t, n) = sum == 0 ? -INFINITY : largest + logf(sum);
  for (Index r = threadIdx.x; r < y.out.shape[2]; r += join_threads) {
    float x = 0;
    for (Index i = 0; i < count; ++i) x += weights[i] * parts.out(i, t, n, r);
    y.out(t, n, r) = sum == 0 ? 0 : x / sum;
  }
}

}  // namespace dsa::cuda::DSA_PLACE
