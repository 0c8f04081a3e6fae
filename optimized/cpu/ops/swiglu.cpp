#include "optimized/cpu/ops/swiglu.hpp"

#include "optimized/cpu/kernels/swiglu.hpp"
#include "optimized/cpu/ops/stored.hpp"

namespace dsa::cpu {

template <class H>
void swiglu(Cpu cpu, View<H, 2> h, View<const float, 2> gate_up) {
  const Index T = h.shape[0], F = h.shape[1];
  expect_shape("gate_up", gate_up, {T, 2 * F});
  SwigluRow* const row = swiglu_row_of[int(cpu.tier)];
#pragma omp parallel for schedule(static)
  for (Index t = 0; t < T; ++t) row(row_out(h.data + t * F), gate_up.data + t * 2 * F, F);
}

void swiglu_backward(Cpu cpu, View<float, 2> d_gate_up, View<const float, 2> gate_up,
                     View<const float, 2> d_h) {
  const Index T = d_h.shape[0], F = d_h.shape[1];
  expect_shape("d_gate_up", d_gate_up, {T, 2 * F});
  expect_shape("gate_up", gate_up, {T, 2 * F});
  SwigluBackwardRow* const row = swiglu_backward_row_of[int(cpu.tier)];
#pragma omp parallel for schedule(static)
  for (Index t = 0; t < T; ++t)
    row(d_gate_up.data + t * 2 * F, gate_up.data + t * 2 * F, d_h.data + t * F, F);
}

template void swiglu(Cpu, View<float, 2>, View<const float, 2>);
template void swiglu(Cpu, View<bf16, 2>, View<const float, 2>);

}  // namespace dsa::cpu
