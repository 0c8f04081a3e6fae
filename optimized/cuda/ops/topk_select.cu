#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/topk.cuh"
#include "optimized/cuda/ops/topk_select.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace v1 {

constexpr int threads = 256;

/// The first subscript of a NaN, or n.
__device__ Index first_nan(DeviceView<const float, 1> scores, SelectScratch scratch) {
  const Index n = scores.shape[0];
  Index first = n;
  for (Index s = threadIdx.x; s < n; s += blockDim.x)
    if (scores(s) != scores(s)) first = smaller(first, s);
  return across_block(std::int32_t(first), Minimum{}, scratch.warps);
}

__device__ Index count_at_least(std::uint32_t bar, DeviceView<const float, 1> scores,
                                SelectScratch scratch) {
  std::int32_t count = 0;
  for (Index s = threadIdx.x; s < scores.shape[0]; s += blockDim.x)
    count += rank_of(scores(s)) >= bar;
  return across_block(count, Sum{}, scratch.warps);
}

/// The cut that takes K of more than K visible scores, a bit at a time.
__device__ Cut bisect(DeviceView<const float, 1> scores, Index K, SelectScratch scratch) {
  std::uint32_t bar = 0;  // the largest that K ranks reach
  for (std::uint32_t bit = 0x80000000u; bit != 0; bit >>= 1)
    if (count_at_least(bar | bit, scores, scratch) >= K) bar |= bit;
  const Index above = bar == 0xffffffffu ? 0 : count_at_least(bar + 1, scores, scratch);
  return {bar, K - above};
}

__global__ void topk_kernel(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                            DeviceView<const float, 2> all_scores) {
  const Index t = blockIdx.x, K = chosen.shape[1];
  const DeviceView<const float, 1> scores = all_scores[t];
  const DeviceView<std::int32_t, 1> row = chosen[t];
  SharedMemory memory;
  const SelectScratch scratch(memory);
  const Index S = scores.shape[0], nan = first_nan(scores, scratch);
  Index taken = 0;
  if (nan == S && K > 0) {
    const Index visible = count_at_least(1, scores, scratch);
    taken = take_cut(
        visible <= K ? Cut{} : bisect(scores, K, scratch),
        [&](Index s) { return rank_of(scores(s)); }, [](Index s) { return s; }, S, scratch,
        [&](Index s, Index i) { row(i) = std::int32_t(s); });
  }
  finish_row(row, nan_at(t), nan, S, taken);
}

void topk_select(Stream stream, DeviceView<std::int32_t, 2> chosen,
                 DeviceView<std::int32_t, 1> nan_at, DeviceView<const float, 2> scores) {
  expect_topk_shapes(chosen, nan_at, scores);
  launch(stream, "topk_select v1", {grid_of(scores.shape[0]), threads, SelectScratch::bytes()},
         topk_kernel, chosen, nan_at, scores);
}

}  // namespace v1

namespace v2 {

constexpr int threads = 512;

__global__ void __launch_bounds__(threads)
    topk_kernel(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                DeviceView<const float, 2> all_scores, Index capacity) {
  const Index t = blockIdx.x;
  const DeviceView<const float, 1> scores = all_scores[t];
  const DeviceView<std::int32_t, 1> row = chosen[t];
  SharedMemory memory;
  const LargestScratch scratch(memory, capacity);
  const Index S = scores.shape[0];
  Index nan = S;  // the first that this thread meets
  const auto rank = [&](Index s) {
    const float score = scores(s);
    if (score != score) nan = smaller(nan, s);
    return rank_of(score);
  };
  const Index visible = count_ranks(rank, S, scratch);
  nan = across_block(std::int32_t(nan), Minimum{}, scratch.select.warps);
  Index taken = 0;
  if (nan == S)
    taken = take_largest(rank, S, row.shape[0], visible, scratch,
                         [&](Index s, Index i) { row(i) = std::int32_t(s); });
  finish_row(row, nan_at(t), nan, S, taken);
}

void topk_select(Stream stream, DeviceView<std::int32_t, 2> chosen,
                 DeviceView<std::int32_t, 1> nan_at, DeviceView<const float, 2> scores) {
  expect_topk_shapes(chosen, nan_at, scores);
  const Index capacity = LargestScratch::capacity_for(chosen.shape[1]);
  launch(stream, "topk_select v2",
         {grid_of(scores.shape[0]), threads, LargestScratch::bytes(capacity)}, topk_kernel, chosen,
         nan_at, scores, capacity);
}

}  // namespace v2

void topk_select(Stream stream, DeviceView<std::int32_t, 2> chosen,
                 DeviceView<std::int32_t, 1> nan_at, DeviceView<const float, 2> scores) {
  if (v3::topk_reads_once(chosen.shape[1], scores.shape[1]))
    return v3::topk_select(stream, chosen, nan_at, scores);
  v2::topk_select(stream, chosen, nan_at, scores);
}

}  // namespace dsa::cuda::DSA_PLACE
