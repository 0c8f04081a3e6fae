#include "optimized/cpu/ops/norms.hpp"

#include "core/threads.hpp"
#include "optimized/cpu/kernels/norms.hpp"
#include "optimized/cpu/ops/stored.hpp"

namespace dsa::cpu {
template <class Y>
void rmsnorm(Cpu cpu, View<Y, 2> y, View<const float, 2> x, View<const float, 1> g, double eps) {
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("y", y, {T, C});
  expect_shape("g", g, {C});
  RmsnormRow* const row = rmsnorm_row_of[int(cpu.tier)];
  parallel_for(T, C / 2,
               [&](Index t) { row(row_out(y.data + t * C), x.data + t * C, g.data, C, eps); });
}

template <class Y>
void layernorm(Cpu cpu, View<Y, 2> y, View<const float, 2> x, View<const float, 1> g,
               View<const float, 1> b, double eps) {
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("y", y, {T, C});
  expect_shape("g", g, {C});
  expect_shape("b", b, {C});
  LayernormRow* const row = layernorm_row_of[int(cpu.tier)];
  parallel_for(T, C / 2, [&](Index t) {
    row(row_out(y.data + t * C), x.data + t * C, g.data, b.data, C, eps);
  });
}

template void rmsnorm(Cpu, View<float, 2>, View<const float, 2>, View<const float, 1>, double);
template void rmsnorm(Cpu, View<bf16, 2>, View<const float, 2>, View<const float, 1>, double);
template void layernorm(Cpu, View<float, 2>, View<const float, 2>, View<const float, 1>,
                        View<const float, 1>, double);
template void layernorm(Cpu, View<bf16, 2>, View<const float, 2>, View<const float, 1>,
                        View<const float, 1>, double);

}  // namespace dsa::cpu
