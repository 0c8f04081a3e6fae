#include "optimized/cpu/ops/embed.hpp"

#include <algorithm>
#include <type_traits>

#include "optimized/cpu/kernels/convert.hpp"

namespace dsa::cpu {
namespace {

template <class Row>
void convert_row(Cpu, Row* y, const Row* x, Index n) {
  std::copy_n(x, n, y);
}
void convert_row(Cpu cpu, float* y, const bf16* x, Index n) {
  widen_row_of[int(cpu.tier)](y, &x->bits, n);
}
void convert_row(Cpu cpu, bf16* y, const float* x, Index n) {
  narrow_row_of[int(cpu.tier)](&y->bits, x, n);
}

void expect_tokens(View<const std::int32_t, 1> tokens, Index V) {
  for (Index t = 0; t < tokens.shape[0]; ++t)
    if (!(0 <= tokens(t) && tokens(t) < V))
      throw Error("token " + std::to_string(t) + " is " + std::to_string(tokens(t)) +
                  "; expected one of a vocabulary of " + std::to_string(V));
}

}  // namespace

template <class Y, class W>
void embed(Cpu cpu, View<Y, 2> y, View<const W, 2> table, View<const std::int32_t, 1> tokens) {
  const Index T = tokens.shape[0], V = table.shape[0], C = table.shape[1];
  expect_shape("y", y, {T, C});
  expect_tokens(tokens, V);
#pragma omp parallel for schedule(static)
  for (Index t = 0; t < T; ++t) convert_row(cpu, y.data + t * C, table.data + tokens(t) * C, C);
}

// By runs of columns: a token may occur in many rows, and each sum has one writer.
void embed_backward(Cpu, View<float, 2> d_table, View<const std::int32_t, 1> tokens,
                    View<const float, 2> d_x) {
  constexpr Index run = 16;
  const Index T = tokens.shape[0], V = d_table.shape[0], C = d_table.shape[1];
  expect_shape("d_x", d_x, {T, C});
  expect_tokens(tokens, V);
#pragma omp parallel for schedule(static)
  for (Index first = 0; first < C; first += run)
    for (Index t = 0; t < T; ++t) {
      float* const to = d_table.data + tokens(t) * C;
      for (Index c = first; c < std::min(first + run, C); ++c) to[c] += d_x.data[t * C + c];
    }
}

template void embed(Cpu, View<float, 2>, View<const float, 2>, View<const std::int32_t, 1>);
template void embed(Cpu, View<float, 2>, View<const bf16, 2>, View<const std::int32_t, 1>);
template void embed(Cpu, View<bf16, 2>, View<const float, 2>, View<const std::int32_t, 1>);
template void embed(Cpu, View<bf16, 2>, View<const bf16, 2>, View<const std::int32_t, 1>);

}  // namespace dsa::cpu
