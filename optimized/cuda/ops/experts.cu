// experts v1: one thread a hidden number, then one thread an output. v2: the products of all tokens
// of an expert at once, on tensor cores (expert_groups.cuh).
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/numbers.cuh"
#include "optimized/cuda/device/silu.cuh"
#include "optimized/cuda/ops/expert_groups.cuh"
#include "optimized/cuda/ops/experts.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

constexpr int threads = 128;

template <class X>
void expect_shapes(DeviceView<float, 2> y, const ExpertsIn<X>& in, DeviceView<X, 3> hidden) {
  const Index T = in.x.shape[0], C = in.x.shape[1], E = in.down.shape[0], F = in.down.shape[2];
  const Index k = in.chosen.shape[1];
  expect_shape("y", y, {T, C});
  expect_shape("gate_up", in.gate_up, {E, 2 * F, C});
  expect_shape("down", in.down, {E, C, F});
  expect_shape("chosen", in.chosen, {T, k});
  expect_shape("weights", in.weights, {T, k});
  expect_shape("hidden", hidden, {T, k, F});
}

}  // namespace

namespace v1 {

template <class X>
__device__ float dot(DeviceView<const X, 1> a, DeviceView<const X, 1> b) {
  float sum = 0;
  for (Index i = 0; i < a.shape[0]; ++i) sum += widen(a(i)) * widen(b(i));
  return sum;
}

template <class X>
__global__ void hidden_kernel(DeviceView<X, 3> hidden, DeviceView<const X, 2> x,
                              DeviceView<const X, 3> gate_up,
                              DeviceView<const std::int32_t, 2> chosen) {
  const Index k = chosen.shape[1], F = hidden.shape[2];
  const Index t = blockIdx.x / k, i = blockIdx.x % k, e = chosen(t, i);
  const Index f = blockIdx.y * Index(threads) + threadIdx.x;
  if (f >= F || e < 0 || e >= gate_up.shape[0]) return;
  const float gate = dot(x[t], gate_up[e][f]), up = dot(x[t], gate_up[e][F + f]);
  hidden(t, i, f) = narrow<X>(silu_times(gate, up));
}

template <class X>
__global__ void sum_kernel(DeviceView<float, 2> y, DeviceView<const X, 3> hidden,
                           DeviceView<const X, 3> down, DeviceView<const std::int32_t, 2> chosen,
                           DeviceView<const float, 2> weights) {
  const Index t = blockIdx.x, c = blockIdx.y * Index(threads) + threadIdx.x;
  if (c >= y.shape[1]) return;
  float sum = y(t, c);
  for (Index i = 0; i < chosen.shape[1]; ++i) {
    const Index e = chosen(t, i);
    if (e == -1) continue;
    const bool known = 0 <= e && e < down.shape[0];
    sum += known ? weights(t, i) * dot(hidden[t][i], down[e][c]) : NAN;
  }
  y(t, c) = sum;
}

template <class X>
void experts(Stream stream, DeviceView<float, 2> y, const ExpertsIn<X>& in,
             DeviceView<X, 3> hidden) {
  expect_shapes(y, in, hidden);
  const Index T = in.x.shape[0], C = in.x.shape[1], k = in.chosen.shape[1], F = in.down.shape[2];
  launch(stream, "experts v1, hidden", {grid_of(T * k, ceil_divide(F, threads)), threads},
         hidden_kernel<X>, hidden, in.x, in.gate_up, in.chosen);
  launch(stream, "experts v1, sum", {grid_of(T, ceil_divide(C, threads)), threads}, sum_kernel<X>,
         y, hidden, in.down, in.chosen, in.weights);
}

}  // namespace v1

namespace v2 {

constexpr int group_threads = 256;
constexpr Index hidden_per_tile = product_rows / 2;  // their gates and their ups fill a tile

/// One block an expert. Counting is a sum of integers: the order of its atomics cannot be seen.
__global__ void group_kernel(Groups groups, DeviceView<const std::int32_t, 1> expert_of) {
  const Index pairs = expert_of.shape[0], E = gridDim.x, e = blockIdx.x;
  SharedMemory memory;
  const Shared<std::int32_t> count = memory.take<std::int32_t>(E);
  const Shared<std::int32_t> scratch = memory.take<std::int32_t>(group_threads / warp_size);
  for (Index other = threadIdx.x; other < E; other += group_threads) count[other] = 0;
  __syncthreads();
  for (Index pair = threadIdx.x; pair < pairs; pair += group_threads) {
    const Index other = expert_of(pair);
    if (0 <= other && other < E) count.atomic_add(other, 1);
  }
  __syncthreads();
  Index first = 0, tile = 0;  // behind the rows and the tiles of the experts before
  for (Index other = threadIdx.x; other < e; other += group_threads) {
    first += count[other];
    tile += Groups::tiles_of(count[other]);
  }
  first = across_block(std::int32_t(first), Sum{}, scratch);
  tile = across_block(std::int32_t(tile), Sum{}, scratch);
  const Index end = first + count[e], next = tile + Groups::tiles_of(count[e]);
  for (Index i = tile + threadIdx.x; i < next; i += group_threads) {
    const Index begin = first + (i - tile) * product_rows;
    groups.set_tile(i, {e, begin, smaller(end, begin + product_rows)});
  }
  if (e == E - 1)
    for (Index i = next + threadIdx.x; i < groups.tiles.shape[0]; i += group_threads)
      groups.set_tile(i, {-1, 0, 0});
  for (Index begin = 0; begin < pairs; begin += group_threads) {
    const Index pair = begin + threadIdx.x;
    const bool mine = pair < pairs && expert_of(pair) == e;
    const Place place = place_among(mine, scratch);
    if (mine) groups.order(first + place.before) = std::int32_t(pair);
    first += place.total;
  }
}

/// Hidden numbers [f, f + 32) of a tile's rows. The tile of matrix rows holds 16 gates, the ups of
/// the same 16, and again: a thread has both of a hidden number (Sums::each_pair).
template <class X>
__global__ void __launch_bounds__(product_threads)
    hidden_kernel(DeviceView<X, 2> hidden, DeviceView<const X, 2> x, DeviceView<const X, 3> gate_up,
                  Groups groups, Index k) {
  const ExpertTile rows = groups.tile(blockIdx.x);
  if (rows.expert < 0) return;
  const Index F = hidden.shape[1], C = x.shape[1], first_f = blockIdx.y * hidden_per_tile;
  const DeviceView<const X, 2> matrix = gate_up[rows.expert];
  const auto f_of = [&](Index column) { return first_f + column / 32 * 16 + column % 16; };
  SharedMemory memory;
  const Operand<X> xs(memory, C, [&](Index i) {
    return rows.first + i < rows.end ? x[groups.order(rows.first + i) / k].data : nullptr;
  });
  const Operand<X> ws(memory, C, [&](Index i) {
    const Index f = f_of(i);
    return f < F ? matrix[i % 32 < 16 ? f : F + f].data : nullptr;
  });
  Sums<X> sums;
  for_each_run(xs, ws, [&](Index, Index stage) { sums.add(xs.tile, ws.tile, stage); });
  sums.each_pair([&](float gate, float up, Index row, Index column) {
    const Index f = f_of(column);
    if (rows.first + row < rows.end && f < F)
      hidden(rows.first + row, f) = narrow<X>(silu_times(gate, up));
  });
}

template <class X>
__global__ void __launch_bounds__(product_threads)
    answer_kernel(DeviceView<float, 2> answers, DeviceView<const X, 2> hidden,
                  DeviceView<const X, 3> down, Groups groups) {
  const ExpertTile rows = groups.tile(blockIdx.x);
  if (rows.expert < 0) return;
  const Index C = answers.shape[1], F = hidden.shape[1], first_c = blockIdx.y * product_rows;
  const DeviceView<const X, 2> matrix = down[rows.expert];
  SharedMemory memory;
  const Operand<X> xs(memory, F, [&](Index i) {
    return rows.first + i < rows.end ? hidden[rows.first + i].data : nullptr;
  });
  const Operand<X> ws(
      memory, F, [&](Index i) { return first_c + i < C ? matrix[first_c + i].data : nullptr; });
  Sums<X> sums;
  for_each_run(xs, ws, [&](Index, Index stage) { sums.add(xs.tile, ws.tile, stage); });
  sums.each([&](int i, int j, Index row, Index column) {
    const Index c = first_c + column;
    if (rows.first + row < rows.end && c < C)
      answers(groups.order(rows.first + row), c) = sums.d[i][j];
  });
}

__global__ void combine_kernel(DeviceView<float, 2> y, DeviceView<const float, 3> answers,
                               DeviceView<const std::int32_t, 2> chosen,
                               DeviceView<const float, 2> weights, Index E) {
  const Index t = blockIdx.x, c = 4 * (blockIdx.y * Index(threads) + threadIdx.x);
  if (c >= y.shape[1]) return;
  Four<float> sum = load_four(&y(t, c));
  for (Index i = 0; i < chosen.shape[1]; ++i) {
    const Index e = chosen(t, i);
    if (e == -1) continue;
    const bool known = 0 <= e && e < E;
    const Four<float> answer = known ? load_four(&answers(t, i, c)) : Four<float>{};
    const float weight = known ? weights(t, i) : NAN;
    for (int j = 0; j < 4; ++j) sum.at[j] += weight * answer.at[j];
  }
  store_four(&y(t, c), sum);
}

template <class X>
void grouped_experts(Stream stream, DeviceView<float, 2> y, const ExpertsIn<X>& in,
                     DeviceView<X, 3> hidden, DeviceView<float, 3> answers, Groups groups) {
  const Index T = in.x.shape[0], C = in.x.shape[1], k = in.chosen.shape[1], F = in.down.shape[2];
  const Index tiles = groups.tiles.shape[0];
  const DeviceView<X, 2> hidden_rows{hidden.data, {T * k, F}};
  const DeviceView<float, 2> answer_rows{answers.data, {T * k, C}};
  launch(stream, "experts v2, hidden",
         {grid_of(tiles, ceil_divide(F, hidden_per_tile)), product_threads, product_shared_bytes},
         hidden_kernel<X>, hidden_rows, in.x, in.gate_up, groups, k);
  launch(stream, "experts v2, answer",
         {grid_of(tiles, ceil_divide(C, product_rows)), product_threads, product_shared_bytes},
         answer_kernel<X>, answer_rows, hidden_rows, in.down, groups);
  launch(stream, "experts v2, combine", {grid_of(T, ceil_divide(C, 4 * threads)), threads},
         combine_kernel, y, answers, in.chosen, in.weights, in.down.shape[0]);
}

Index experts_workspace(Index T, Index k, Index E, Index C) {
  return T * k * (C + 1) + 3 * Groups::most_tiles(T * k, E);
}

std::string experts_refuses(Index C, Index F, Index bytes_per_element) {
  if (C * bytes_per_element % 16 == 0 && F * bytes_per_element % 16 == 0) return "";
  return "experts v2 takes rows of a multiple of 16 bytes, got " +
         std::to_string(C * bytes_per_element) + " and " + std::to_string(F * bytes_per_element);
}

template <class X>
void experts(Stream stream, DeviceView<float, 2> y, const ExpertsIn<X>& in, DeviceView<X, 3> hidden,
             DeviceView<std::uint32_t, 1> workspace) {
  expect_shapes(y, in, hidden);
  const Index T = in.x.shape[0], C = in.x.shape[1], k = in.chosen.shape[1];
  const Index E = in.down.shape[0], pairs = T * k, needed = experts_workspace(T, k, E, C);
  const std::string refusal = experts_refuses(C, in.down.shape[2], sizeof(X));
  require(refusal.empty(), refusal);
  require(workspace.shape[0] >= needed, "the workspace of experts v2 has " +
                                            std::to_string(workspace.shape[0]) +
                                            " elements, expected " + std::to_string(needed));
  const DeviceView<float, 3> answers{reinterpret_cast<float*>(workspace.data), {T, k, C}};
  auto* const order = reinterpret_cast<std::int32_t*>(workspace.data + pairs * C);
  const Groups groups{{order, {pairs}}, {order + pairs, {Groups::most_tiles(pairs, E), 3}}};
  launch(stream, "experts v2, group",
         {grid_of(E), group_threads,
          shared_room<std::int32_t>(E) + shared_room<std::int32_t>(group_threads / warp_size)},
         group_kernel, groups, DeviceView<const std::int32_t, 1>{in.chosen.data, {pairs}});
  grouped_experts(stream, y, in, hidden, answers, groups);
}

}  // namespace v2

template <class X>
Index experts_workspace(Index T, Index k, Index E, Index C, Index F) {
  return v2::experts_refuses(C, F, sizeof(X)).empty() ? v2::experts_workspace(T, k, E, C) : 0;
}

template <class X>
void experts(Stream stream, DeviceView<float, 2> y, const ExpertsIn<X>& in, DeviceView<X, 3> hidden,
             DeviceView<std::uint32_t, 1> workspace) {
  if (v2::experts_refuses(in.x.shape[1], hidden.shape[2], sizeof(X)).empty())
    return v2::experts(stream, y, in, hidden, workspace);
  v1::experts(stream, y, in, hidden);
}

#define DSA_INSTANTIATE(function, X, ...)                                   \
  template void function(Stream, DeviceView<float, 2>, const ExpertsIn<X>&, \
                         DeviceView<X, 3> __VA_OPT__(, ) __VA_ARGS__);
DSA_INSTANTIATE(v1::experts, float)
DSA_INSTANTIATE(v1::experts, bf16)
DSA_INSTANTIATE(v2::grouped_experts, float, DeviceView<float, 3>, v2::Groups)
DSA_INSTANTIATE(v2::grouped_experts, bf16, DeviceView<float, 3>, v2::Groups)
DSA_INSTANTIATE(v2::experts, float, DeviceView<std::uint32_t, 1>)
DSA_INSTANTIATE(v2::experts, bf16, DeviceView<std::uint32_t, 1>)
DSA_INSTANTIATE(experts, float, DeviceView<std::uint32_t, 1>)
DSA_INSTANTIATE(experts, bf16, DeviceView<std::uint32_t, 1>)
template Index experts_workspace<float>(Index, Index, Index, Index, Index);
template Index experts_workspace<bf16>(Index, Index, Index, Index, Index);

}  // namespace dsa::cuda::DSA_PLACE
