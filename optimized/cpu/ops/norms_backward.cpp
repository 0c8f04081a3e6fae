#include "optimized/cpu/ops/norms_backward.hpp"

#include <algorithm>

#include "optimized/cpu/kernels/norms.hpp"

namespace dsa::cpu {
namespace {

constexpr Index run = 64;  // rows that one thread sums

/// d_g and d_b may be without data.
void backward(NormBackward* kernel, View<float, 2> d_x, View<float, 1> d_g, View<float, 1> d_b,
              bool has_b, const NormIn& in, bool add, TrainMemory& memory) {
  const Index T = in.x.shape[0], C = in.x.shape[1], runs = (T + run - 1) / run;
  expect_shape("d_x", d_x, {T, C});
  expect_shape("g", in.g, {C});
  expect_shape("d_y", in.d_y, {T, C});
  if (d_g.data) expect_shape("d_g", d_g, {C});
  if (d_b.data) expect_shape("d_b", d_b, {C});
  auto* const sums = reinterpret_cast<float*>(memory.shared(4 * runs * 2 * C));
#pragma omp parallel for schedule(static)
  for (Index i = 0; i < runs; ++i) {
    const Index first = i * run * C;
    float* const mine = sums + i * 2 * C;
    kernel({.x = in.x.data + first,
            .g = in.g.data,
            .d_y = in.d_y.data + first,
            .d_x = d_x.data + first,
            .d_g = mine,
            .d_b = has_b ? mine + C : nullptr,
            .rows = std::min(run, T - i * run),
            .C = C,
            .eps = in.eps,
            .add = add});
  }
  for (Index i = 0; i < runs; ++i) {
    const float* const mine = sums + i * 2 * C;
    for (Index c = 0; c < C && d_g.data; ++c) d_g.data[c] += mine[c];
    for (Index c = 0; c < C && d_b.data; ++c) d_b.data[c] += mine[C + c];
  }
}

}  // namespace

void rmsnorm_backward(Cpu cpu, View<float, 2> d_x, View<float, 1> d_g, const NormIn& in, bool add,
                      TrainMemory& memory) {
  backward(rmsnorm_backward_rows_of[int(cpu.tier)], d_x, d_g, {}, false, in, add, memory);
}

void layernorm_backward(Cpu cpu, View<float, 2> d_x, View<float, 1> d_g, View<float, 1> d_b,
                        const NormIn& in, bool add, TrainMemory& memory) {
  backward(layernorm_backward_rows_of[int(cpu.tier)], d_x, d_g, d_b, true, in, add, memory);
}

}  // namespace dsa::cpu
