// reference/precision/composed_backward.hpp — backward passes of the modules that torch composes of
// several operations.
//
// autograd goes back through each operation and stores what it hands to the next, so the gradient
// of a norm is rounded six times, and where two parts nearly cancel, the last rounding is the
// smallest. Each function here takes the definition's formula apart as torch does. What comes out
// still lacks the store in the dtype of the tensor that the gradient belongs to
// (rounder_backward.hpp).
#pragma once

#include "reference/model/backward_ops.hpp"
#include "reference/precision/rounder.hpp"

namespace dsa::reference {

/// Outputs come zeroed.
struct ComposedBackward {
  Formats formats;
  Rounding rounding;

  using In = View<const double, 2>;
  using Out = View<double, 2>;
  using Name = const std::string&;

  void rmsnorm(Name, Out d_x, View<double, 1> d_g, In x, const Parameter& g, In d_y,
               double eps) const;
  void rope(Name, View<double, 3> d_x, In cos, In sin, RopeLayout) const;  // in place
  void router_scores(Name, Out d_z, In s, In d_s, Router::Scoring) const;
  void router_weights(Name, Out d_s, In s, View<const Index, 2> experts, In d_weights,
                      bool normalise, double scale) const;
  void swiglu(Name, Out d_gate, Out d_up, In gate, In up, In d_h) const;
  void accumulate(Name, AccumulateGradient<double>, In x, std::span<const Index> rows,
                  std::span<const double> weights, In d_y) const;
  void cross_entropy(Name, Out d_z, In z, std::span<const Token> targets,
                     std::span<const double> weights) const;

  /// The roundings of one step of a backward pass; the forward op of that name has steps below 100.
  Stream step(Name name, int number) const { return {rounding, name, 200 + number}; }
};

/// A sum of products with the error of its accumulator.
struct RoundedSum {
  double value = 0, squares = 0;
  Index terms = 0;
  void add(double term) { value += term, squares += term * term, ++terms; }
  double rounded(const Stream& die, Dtype wide, Dtype stored, Index i) const {
    return die.round(stored, value + die.accumulation(wide, terms, squares, value, i), i);
  }
};

}  // namespace dsa::reference
