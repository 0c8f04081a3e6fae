// optimized/shared/narrow.hpp — f32 weights as bf16, for loading.
#pragma once

#include <span>

#include "core/dtype.hpp"

namespace dsa {

/// To nearest, ties to even, on all threads. The numbers are finite: read_rows refuses others.
void narrow_to_bf16(std::span<bf16> y, std::span<const float> x);

}  // namespace dsa
