// optimized/cpu/ops/experts.hpp — feed-forward networks: one, and a mixture of them.
//
//   feed_forward:  y = down( silu(gate x) * up x )
//   experts:       y[t,:] = sum_i weights[t,i] feed_forward_{chosen[t,i]}(x[t,:])
//
// Definition: reference/model/moe.cpp. Tokens are sorted by expert, each expert's matrices are
// read once.
#pragma once

#include <cstdint>
#include <span>

#include "optimized/cpu/ops/linear.hpp"

namespace dsa::cpu {

/// Gate and up lie in one matrix (2F, C), rows of gate first: x is read once.
struct FeedForward {
  Matrix gate_up, down;  // (2F, C), (C, F)
  /// (2F), (C); may be empty. experts() ignores biases: no model has them in a mixture.
  Tensor<float, 1> gate_up_bias = {}, down_bias = {};
};

/// X: float or bf16, as the matrices are. `add`: the result is added to y. Scratch: experts_scratch
/// of one expert a token (k = 1), as a whole.
template <class X>
void feed_forward(Cpu, View<float, 2> y,  // (T, C)  out
                  View<const X, 2> x,     // (T, C)
                  const FeedForward&, bool add, Scratch);

template <class X>
struct ExpertsIn {
  View<const X, 2> x;                     // (T, C)
  View<const std::int32_t, 2> chosen;     // (T, k)
  View<const float, 2> weights;           // (T, k)
  std::span<const FeedForward> networks;  // (E)
};

/// Adds the mixture to y. Sums over experts are taken in the order of `chosen`, which the router
/// gives ascending. Error: an expert is not in [0, E).
template <class X>
void experts(Cpu, View<float, 2> y,  // (T, C)  in and out
             const ExpertsIn<X>&, Scratch);
/// Bytes of the whole pass, not of one thread, for the current number of threads. The pass begins
/// at thread 0's piece of the Scratch.
Index experts_scratch(Index T, Index k, Index C, Index F);

}  // namespace dsa::cpu
