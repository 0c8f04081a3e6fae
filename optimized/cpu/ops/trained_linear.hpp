// optimized/cpu/ops/trained_linear.hpp — matrix products of training: forward, and both ways back.
// Definition: reference/ops/linear.hpp.
//
// Rows may belong to several matrices of one shape, as tokens sorted by expert do. Numbers are
// floats; what is multiplied is rounded to the dtype of the matrices, sums are fp32. Every sum has
// one order, whatever the number of threads.
#pragma once

#include <span>

#include "optimized/cpu/ops/linear.hpp"
#include "optimized/cpu/ops/train_memory.hpp"

namespace dsa::cpu {

/// One matrix, and the rows of x that it multiplies. What is not wanted is without data.
struct LinearRows {
  Index begin = 0, end = 0;            // of x and y
  const Matrix* w = nullptr;           // (out, in)
  const Matrix* w_by_input = nullptr;  // (in, out): the same matrix turned over
  View<const float, 1> bias = {};      // (out)
  View<float, 2> d_weight = {};        // (out, in)  added to
  View<float, 1> d_bias = {};          // (out)      added to
};

/// y[t,o] = sum_i W[o,i] x[t,i] + b[o]; `add`: added to y.
void linear_rows(Cpu, Strided<float> y,   // (T, out)  out
                 View<const float, 2> x,  // (T, in)
                 std::span<const LinearRows>, bool add, TrainMemory&);

/// forward: y[t,o] = sum_i W[o,i] x[t,i] + b[o]
/// so:      d_x[t,i] = sum_o W[o,i] d_y[t,o]; `add`: added to d_x
void linear_rows_backward_input(Cpu, View<float, 2> d_x,   // (T, in)  out
                                Strided<const float> d_y,  // (T, out)
                                std::span<const LinearRows>, bool add, TrainMemory&);

/// forward: y[t,o] = sum_i W[o,i] x[t,i] + b[o]
/// so:      d_W[o,i] += sum_t d_y[t,o] x[t,i],  d_b[o] += sum_t d_y[t,o]
void linear_rows_backward_weight(Cpu, View<const float, 2> x,  // (T, in)
                                 Strided<const float> d_y,     // (T, out)
                                 std::span<const LinearRows>, TrainMemory&);

}  // namespace dsa::cpu
