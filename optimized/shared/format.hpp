// optimized/shared/format.hpp — the number formats of a pass.
//
//   format   weights   inputs of products   caches (rows.hpp)          everything else
//   fp32     f32       f32                  f32                        f32
//   bf16     bf16      bf16                 bf16                       f32
//   fp8      bf16      bf16                 e4m3: latent and index     f32
//
// Everything else: sums, residual stream, norms, softmax, rotary table (from double). The router
// and the indexer's weights_proj have f32 weights and inputs in every format, as HuggingFace and
// the official code have. fp8 caches are the official serving code's: index rows are rotated by a
// Hadamard matrix, latent rows are FlashMLA's.
#pragma once

#include <string>
#include <string_view>

#include "core/dtype.hpp"

namespace dsa {

enum class Format { fp32, bf16, fp8 };

std::string_view name_of(Format);  // "fp32", "bf16", "fp8"

/// Error: lists the names.
Format format_named(std::string_view);

/// The type of the matrices and of their inputs: f32 or bf16.
Dtype matrix_dtype(Format);

}  // namespace dsa
