#include "optimized/cuda/launch.cuh"
#include "optimized/cuda/topk.cuh"
#include "optimized/cuda/topk_select.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

void expect_shapes(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                   DeviceView<const float, 2> scores) {
  const Index T = scores.shape[0];
  expect_shape("chosen", chosen, {T, chosen.shape[1]});
  expect_shape("nan_at", nan_at, {T});
  require(scores.shape[1] <= 0x7fffffff,
          "a row of " + std::to_string(scores.shape[1]) + " scores has subscripts beyond 32 bits");
}

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

/// Takes the row's cut into `chosen`, and fills up with -1.
__device__ void write_row(DeviceView<std::int32_t, 1> chosen, Cut cut,
                          DeviceView<const float, 1> scores, SelectScratch scratch) {
  const Index taken = take_cut(
      cut, [&](Index s) { return rank_of(scores(s)); }, [](Index s) { return s; }, scores.shape[0],
      scratch, [&](Index s, Index i) { chosen(i) = std::int32_t(s); });
  for (Index i = taken + threadIdx.x; i < chosen.shape[0]; i += blockDim.x) chosen(i) = -1;
}

/// What both rungs have in common: one block a row. find(scores, k, scratch) is the cut that takes
/// k of more than k visible scores.
template <class Find>
__device__ void select_row(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                           DeviceView<const float, 2> all_scores, Find find) {
  const Index t = blockIdx.x, K = chosen.shape[1];
  const DeviceView<const float, 1> scores = all_scores[t];
  SharedMemory memory;
  const SelectScratch scratch(memory);
  const Index nan = first_nan(scores, scratch);
  const bool ordered = nan == scores.shape[0];
  if (threadIdx.x == 0) nan_at(t) = ordered ? -1 : std::int32_t(nan);
  if (!ordered || K == 0) {
    for (Index i = threadIdx.x; i < K; i += blockDim.x) chosen(t, i) = -1;
    return;
  }
  const Index visible = count_at_least(1, scores, scratch);
  write_row(chosen[t], visible <= K ? Cut{} : find(scores, K, scratch), scores, scratch);
}

constexpr int threads = 256;

LaunchShape one_block_a_row(Index rows) { return {grid_of(rows), threads, SelectScratch::bytes()}; }

}  // namespace

namespace v1 {

__global__ void topk_kernel(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                            DeviceView<const float, 2> scores) {
  select_row(chosen, nan_at, scores,
             [](DeviceView<const float, 1> row, Index K, SelectScratch scratch) {
               std::uint32_t bar = 0;  // the largest that K ranks reach
               for (std::uint32_t bit = 0x80000000u; bit != 0; bit >>= 1)
                 if (count_at_least(bar | bit, row, scratch) >= K) bar |= bit;
               const Index above = bar == 0xffffffffu ? 0 : count_at_least(bar + 1, row, scratch);
               return Cut{bar, K - above};
             });
}

void topk_select(Stream stream, DeviceView<std::int32_t, 2> chosen,
                 DeviceView<std::int32_t, 1> nan_at, DeviceView<const float, 2> scores) {
  expect_shapes(chosen, nan_at, scores);
  launch(stream, "topk_select v1", one_block_a_row(scores.shape[0]), topk_kernel, chosen, nan_at,
         scores);
}

}  // namespace v1

namespace v2 {

__global__ void topk_kernel(DeviceView<std::int32_t, 2> chosen, DeviceView<std::int32_t, 1> nan_at,
                            DeviceView<const float, 2> scores) {
  select_row(chosen, nan_at, scores,
             [](DeviceView<const float, 1> row, Index K, SelectScratch scratch) {
               return find_cut([&](Index s) { return rank_of(row(s)); }, row.shape[0], K, scratch);
             });
}

void topk_select(Stream stream, DeviceView<std::int32_t, 2> chosen,
                 DeviceView<std::int32_t, 1> nan_at, DeviceView<const float, 2> scores) {
  expect_shapes(chosen, nan_at, scores);
  launch(stream, "topk_select v2", one_block_a_row(scores.shape[0]), topk_kernel, chosen, nan_at,
         scores);
}

}  // namespace v2

void topk_select(Stream stream, DeviceView<std::int32_t, 2> chosen,
                 DeviceView<std::int32_t, 1> nan_at, DeviceView<const float, 2> scores) {
  v2::topk_select(stream, chosen, nan_at, scores);
}

}  // namespace dsa::cuda::DSA_PLACE
