// optimized/cpu/kernels/peaks.hpp — loops that do nothing but multiply, or read, in every tier.
#pragma once

#include "optimized/cpu/kernels/tiers.hpp"

namespace dsa::cpu {

/// n rounds of independent multiply-adds in registers; returns how many operations they were.
/// `numbers` (peak_numbers) in and out, so that nothing can be left out.
using MultiplyLoop = double(bool bf16, std::int64_t n, float* numbers);
DSA_DECLARE_IN_EVERY_TIER(MultiplyLoop, multiply_loop)
constexpr std::int64_t peak_numbers = 1024;

/// The sum of x (n), n a multiple of 256.
using ReadLoop = float(const float* x, std::int64_t n);
DSA_DECLARE_IN_EVERY_TIER(ReadLoop, read_loop)

}  // namespace dsa::cpu
