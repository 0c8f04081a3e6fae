#include "optimized/cpu/ops/expert_rows.hpp"

#include <algorithm>

#include "optimized/cpu/kernels/rows.hpp"

namespace dsa::cpu {

void sort_by_expert(const ExpertRows& rows, View<const std::int32_t, 2> experts) {
  const Index M = experts.size(), E = static_cast<Index>(rows.begin.size()) - 1;
  expect_shape("pair", rows.pair, {M});
  expect_shape("row", rows.row, experts.shape);
  std::fill(rows.begin.begin(), rows.begin.end(), Index{0});
  for (const std::int32_t e : experts) {
    if (!(0 <= e && e < E))
      throw Error("expert " + std::to_string(e) + " was chosen; expected one of " +
                  std::to_string(E));
    ++rows.begin[static_cast<std::size_t>(e)];
  }
  Index sum = 0;
  for (Index& b : rows.begin) {
    const Index count = b;
    b = sum;
    sum += count;
  }
  // begin[e] runs to the end of its expert, which is where the next begins: turned back below.
  for (Index i = 0; i < M; ++i) {
    const auto e = static_cast<std::size_t>(experts.data[i]);
    const Index row = rows.begin[e]++;
    rows.pair.data[row] = static_cast<std::int32_t>(i);
    rows.row.data[i] = static_cast<std::int32_t>(row);
  }
  std::copy_backward(rows.begin.begin(), rows.begin.end() - 1, rows.begin.end());
  rows.begin[0] = 0;
}

void gather_rows(Cpu, View<float, 2> y, View<const float, 2> x, const ExpertRows& rows) {
  const Index M = rows.pair.shape[0], C = x.shape[1], k = rows.row.shape[1];
  expect_shape("y", y, {M, C});
#pragma omp parallel for schedule(static)
  for (Index m = 0; m < M; ++m) std::copy_n(x.data + rows.pair.data[m] / k * C, C, y.data + m * C);
}

void add_rows(Cpu cpu, View<float, 2> y, View<const float, 2> x, View<const float, 2> weights,
              const ExpertRows& rows) {
  const Index T = y.shape[0], C = y.shape[1], k = rows.row.shape[1];
  expect_shape("x", x, {T * k, C});
  if (weights.data) expect_shape("weights", weights, {T, k});
  AddScaledRow* const add = add_scaled_row_of[int(cpu.tier)];
#pragma omp parallel for schedule(static)
  for (Index t = 0; t < T; ++t)
    for (Index i = t * k; i < (t + 1) * k; ++i)
      add(y.data + t * C, x.data + rows.row.data[i] * C, weights.data ? weights.data[i] : 1.0f, C);
}

void mixing_backward(Cpu cpu, View<float, 2> d_weights, View<float, 2> h, View<float, 2> d_h,
                     View<const float, 2> weights, const ExpertRows& rows) {
  const Index M = h.shape[0], F = h.shape[1];
  expect_shape("d_weights", d_weights, rows.row.shape);
  expect_shape("weights", weights, rows.row.shape);
  expect_shape("d_h", d_h, {M, F});
  DotAndScaleRow* const dot = dot_and_scale_row_of[int(cpu.tier)];
#pragma omp parallel for schedule(static)
  for (Index m = 0; m < M; ++m) {
    const std::int32_t pair = rows.pair.data[m];
    d_weights.data[pair] = dot(h.data + m * F, d_h.data + m * F, weights.data[pair], F);
  }
}

}  // namespace dsa::cpu
