#include "optimized/cpu/ops/rope.hpp"

#include "optimized/cpu/kernels/rope.hpp"

namespace dsa::cpu {
namespace {

void turn(Cpu cpu, View<float, 3> x, View<const float, 2> cos, View<const float, 2> sin,
          Index first, RopeLayout layout, bool back) {
  const Index T = x.shape[0], heads = x.shape[1], width = x.shape[2], half = cos.shape[1];
  expect_shape("cos", cos, {T, half});
  expect_shape("sin", sin, {T, half});
  if (!(0 <= first && first + 2 * half <= width))
    throw Error("rope turns channels " + std::to_string(first) + " to " +
                std::to_string(first + 2 * half) + " of heads of " + std::to_string(width) +
                "; expected them to lie within the head");
  RopeHeads* const heads_of_token = rope_heads_of[int(cpu.tier)];
#pragma omp parallel for schedule(static)
  for (Index t = 0; t < T; ++t)
    heads_of_token(x.data + t * heads * width + first, heads, width,
                   {.cos = cos.data + t * half,
                    .sin = sin.data + t * half,
                    .half = half,
                    .interleaved = layout == RopeLayout::interleaved,
                    .back = back});
}

}  // namespace

void rope(Cpu cpu, View<float, 3> x, View<const float, 2> cos, View<const float, 2> sin,
          Index first, RopeLayout layout) {
  turn(cpu, x, cos, sin, first, layout, false);
}

void rope_backward(Cpu cpu, View<float, 3> d_x, View<const float, 2> cos, View<const float, 2> sin,
                   Index first, RopeLayout layout) {
  turn(cpu, d_x, cos, sin, first, layout, true);
}

}  // namespace dsa::cpu
