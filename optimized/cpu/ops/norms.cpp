#include "optimized/cpu/ops/norms.hpp"

#include <type_traits>

#include "optimized/cpu/kernels/norms.hpp"

namespace dsa::cpu {
namespace {

float* as_float(float* y) { return y; }
float* as_float(bf16*) { return nullptr; }
std::uint16_t* as_bf16(float*) { return nullptr; }
std::uint16_t* as_bf16(bf16* y) { return &y->bits; }

}  // namespace

template <class Y>
void rmsnorm(Cpu cpu, View<Y, 2> y, View<const float, 2> x, View<const float, 1> g, double eps) {
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("y", y, {T, C});
  expect_shape("g", g, {C});
  RmsnormRow* const row = rmsnorm_row_of[int(cpu.tier)];
#pragma omp parallel for
  for (Index t = 0; t < T; ++t) {
    Y* out = y.data + t * C;
    row(as_float(out), as_bf16(out), x.data + t * C, g.data, C, eps);
  }
}

template <class Y>
void layernorm(Cpu cpu, View<Y, 2> y, View<const float, 2> x, View<const float, 1> g,
               View<const float, 1> b, double eps) {
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("y", y, {T, C});
  expect_shape("g", g, {C});
  expect_shape("b", b, {C});
  LayernormRow* const row = layernorm_row_of[int(cpu.tier)];
#pragma omp parallel for
  for (Index t = 0; t < T; ++t) {
    Y* out = y.data + t * C;
    row(as_float(out), as_bf16(out), x.data + t * C, g.data, b.data, C, eps);
  }
}

template void rmsnorm(Cpu, View<float, 2>, View<const float, 2>, View<const float, 1>, double);
template void rmsnorm(Cpu, View<bf16, 2>, View<const float, 2>, View<const float, 1>, double);
template void layernorm(Cpu, View<float, 2>, View<const float, 2>, View<const float, 1>,
                        View<const float, 1>, double);
template void layernorm(Cpu, View<bf16, 2>, View<const float, 2>, View<const float, 1>,
                        View<const float, 1>, double);

}  // namespace dsa::cpu
