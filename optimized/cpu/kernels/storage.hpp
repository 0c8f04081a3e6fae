// optimized/cpu/kernels/storage.hpp — the formats of rows.hpp, for kernels.
#pragma once

#include <cstdint>

namespace dsa::cpu {

enum class Storage { f32, bf16, e4m3 };

/// Bytes of n channels, scales not counted.
constexpr std::int64_t bytes_of(Storage storage, std::int64_t n) {
  return storage == Storage::f32 ? 4 * n : storage == Storage::bf16 ? 2 * n : n;
}

/// Channels of a row once it is made ready for multiplication: whole tiles of 32.
constexpr std::int64_t padded(std::int64_t channels) { return (channels + 31) / 32 * 32; }

}  // namespace dsa::cpu
