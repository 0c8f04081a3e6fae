// reference/precision/hf_fp16.hpp — HuggingFace in float16, whose sums may be of float16 as well.
//
// torch.backends.cuda.matmul.allow_fp16_accumulation, and the half-precision tensor cores of
// consumer GPUs: the products of layers and of the attention are summed in float16. What the model
// computes in float32 stays so: norms, router, index scores, softmax. A run that sums in float32
// lies within the same limits.
#pragma once

#include "reference/precision/rounder.hpp"

namespace dsa::reference {

Ops<double> hf_fp16_ops(const Rounded&);

}  // namespace dsa::reference
