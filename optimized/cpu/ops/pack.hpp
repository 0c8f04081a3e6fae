// optimized/cpu/ops/pack.hpp — matrices laid out for products, again and again: weights that change
// with every step, and activations.
#pragma once

#include <span>

#include "optimized/cpu/ops/linear.hpp"

namespace dsa::cpu {

/// What a matrix (out, in) shall hold: w[o * row_stride + i * column_stride]. One of the strides is
/// 1: rows of `in`, or columns of `out`. No allocation.
struct Packing {
  Matrix* to = nullptr;
  const float* w = nullptr;
  Index row_stride = 0, column_stride = 1;
};
void pack(Cpu, std::span<const Packing>);

}  // namespace dsa::cpu
