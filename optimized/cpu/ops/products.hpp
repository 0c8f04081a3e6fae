// optimized/cpu/ops/products.hpp — several matrix products at once, shared out among the threads:
// how linear and the experts multiply.
#pragma once

#include <span>

#include "optimized/cpu/ops/linear.hpp"

namespace dsa::cpu {

/// y = x W^T + b, as linear computes it, or y += x W^T + b. One of y and y_bf16 is null. Products
/// of one call write to different places.
struct Product {
  const void* x = nullptr;              // rows of floats or bf16, as the matrix is
  Index x_stride = 0;                   // elements
  const std::int32_t* which = nullptr;  // rows of x, or null: 0, 1, 2, ...
  Index rows = 0;
  const Matrix* w = nullptr;
  Index out = 0;  // the first rows of w only; 0: all of them
  float* y = nullptr;
  bf16* y_bf16 = nullptr;
  Index y_stride = 0;
  const float* bias = nullptr;
  bool add = false;        // to y, which is float
  bool by_column = false;  // x[i * x_stride + t] instead of x[t * x_stride + i]; without `which`
  bool in_place = false;   // floats by row are read where they are: for x that is narrow
};

/// Scratch: linear_scratch of the widest `in`.
void multiply(Cpu, std::span<const Product>, Scratch);

}  // namespace dsa::cpu
