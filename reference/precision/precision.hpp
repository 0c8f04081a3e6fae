// reference/precision/precision.hpp — the reference with somebody's roundings.
//
// Goldens made in fp32 or bf16, or served in fp8, differ from the definition by what was rounded
// on the way. A precision is the op table with a rounding at every place where that
// implementation rounds. To nearest, it predicts what the implementation prints; at random
// (stochastic rounding, a draw a seed), it samples how far a correct run may lie from the
// definition: verify/limits/noise.hpp turns draws into limits.
//
// How a sum of n products is rounded depends on its order, which nobody promises. The random mode
// assumes the worst order in use, one term after another in the accumulator's precision u: its
// error has a standard deviation of u sqrt(n Q/6 + n y^2/9), Q the sum of squared terms, y the
// result (a random walk of partial sums, and their drift towards y).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "reference/model/ops.hpp"

namespace dsa::reference {

enum class Precision {
  fp64,          // double throughout
  hf_fp32,       // HuggingFace transformers in float32, its fp32 frequency table included
  hf_bf16,       // HuggingFace in bfloat16: fp32 norms, softmax and router, fp32 accumulation
  official_fp8,  // deepseek-ai inference code: bf16, FP8 linears, Hadamard, FP8 index and latent
  llama_f16,     // llama.cpp on a CPU: float32, latent and keys cached in f16
  hf_tf32,       // HuggingFace in float32 with TF32 matrix products
  hf_fp16,       // HuggingFace in float16, products summed in float16 or wider
};
std::string_view name_of(Precision);  // "fp64", "hf-fp32", "hf-bf16", "official-fp8", ...
/// Error: lists the names.
Precision precision_named(std::string_view);
/// "fp64, hf-fp32, hf-bf16, official-fp8, llama-f16 or hf-tf32", for help texts.
std::string precision_names();

/// The format that most numbers of such a run are rounded to.
Dtype format_of(Precision);

struct Rounding {
  enum class Mode { nearest, random };
  Mode mode = Mode::nearest;
  std::uint64_t seed = 0;  // random: which draw
};

/// The model as that implementation loads it: parameters rounded to the run's dtype, except those
/// it keeps in float32. Rounding happens when rows are read.
Model loaded_as(Model, Precision);

/// Runs on a model that went through loaded_as. `config` supplies what differs by family.
Ops<double> ops_of(Precision, Rounding, const Config& config);

}  // namespace dsa::reference
