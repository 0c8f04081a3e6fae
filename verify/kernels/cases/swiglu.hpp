// verify/kernels/cases/swiglu.hpp — the error that silu(gate) * up may have.
#pragma once

#include "verify/measure/bounds.hpp"

namespace dsa::verify::kernels {

/// silu(g) up = g up / (1 + e^-g), with g wrong by at most `g_error` and up by `up_error`, then
/// computed in fp32. An error of exp reaches the result through the share that e^-g has of
/// 1 + e^-g; sum, division and two products round once each. silu is at most 1.1 steep. Where e^-g
/// overflows, or its argument is clamped to where it does not, the result is flushed to zero, or
/// is g up 2^-126 instead.
inline double swiglu_error(double g, double up, double g_error = 0, double up_error = 0) {
  constexpr double steepest = 1.1, u = unit_roundoff_fp32;
  const double s = 1 / (1 + std::exp(-g)), silu = std::abs(g * s);
  const double moved = steepest * g_error * (std::abs(up) + up_error) + silu * up_error;
  const double relative = (1 - s) * exp_error(std::abs(g), 0) + gamma(4, u);
  return moved + (silu * std::abs(up) + moved) * relative +
         2 * smallest_normal_fp32 * (1 + std::abs(g * up));
}

}  // namespace dsa::verify::kernels
