// optimized/cpu/ops/peaks.hpp — what this machine can do, measured: the roofs of a roofline.
//
// Each takes a few hundred milliseconds, on as many threads as ops use, and is the best of
// several runs: a roof is what nothing else disturbed.
#pragma once

#include "core/dtype.hpp"
#include "optimized/cpu/ops/tier.hpp"

namespace dsa::cpu {

/// Operations a second of the tier's multiply-adds in registers, two each. bf16: products of bf16,
/// where the tier has them; otherwise, and f32: FMA. Error: another dtype.
double matrix_peak(Cpu, Dtype);

/// Bytes a second read from memory, in order.
double read_bandwidth(Cpu);

}  // namespace dsa::cpu
