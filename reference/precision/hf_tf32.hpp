// reference/precision/hf_tf32.hpp — HuggingFace in float32 on a GPU that multiplies in TF32.
//
// torch.backends.cuda.matmul.allow_tf32, or set_float32_matmul_precision("high"): the inputs of
// every matrix product keep 10 of their 23 bits of fraction, sums stay in float32. Norms, softmax,
// the rotary table and everything elementwise stay float32. A tensor core reads a float32 register
// and ignores the lower 13 bits, where the kernel did not round before; nobody promises which: a
// draw takes rounding to nearest, truncation or stochastic rounding, one for every product.
#pragma once

#include "reference/precision/rounder.hpp"

namespace dsa::reference {

/// x with 10 bits of fraction: to nearest, ties to even.
double round_to_tf32(double x);

Ops<double> hf_tf32_ops(const Rounded&);

}  // namespace dsa::reference
