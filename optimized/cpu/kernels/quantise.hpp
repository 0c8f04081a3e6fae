// optimized/cpu/kernels/quantise.hpp — one row to e4m3, and the rotation before it, in every tier.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// y[i] = e4m3(x[i] / scale), i < n; returns the scale: max(|x|, 1e-4) / 448, rounded up to a power
/// of two under ue8m0.
using QuantiseRow = float(std::uint8_t* y, const float* x, std::int64_t n, bool ue8m0);
DSA_DECLARE_IN_EVERY_TIER(QuantiseRow, quantise_row)

/// y = bf16( H_D bf16(x) / sqrt(D) ), the values of bf16 as floats; D a power of two.
using HadamardRow = void(float* y, const float* x, std::int64_t D);
DSA_DECLARE_IN_EVERY_TIER(HadamardRow, hadamard_row)

}  // namespace dsa::cpu
