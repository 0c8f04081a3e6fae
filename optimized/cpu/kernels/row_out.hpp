// optimized/cpu/kernels/row_out.hpp — where a kernel writes a row: as float or as bf16.
#pragma once

#include <cstdint>

namespace dsa::cpu {

/// One of the two; the other is null.
struct RowOut {
  float* f32 = nullptr;
  std::uint16_t* bf16 = nullptr;
};

}  // namespace dsa::cpu
