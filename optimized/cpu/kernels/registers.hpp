// optimized/cpu/kernels/registers.hpp — one vector register of the tier, and how many there are.
#pragma once

#include <cstdint>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace dsa::cpu::DSA_TIER {

/// Lanes of a register; and the block of sums that fits the registers: `tile_rows` rows of x by
/// `tile_columns` columns of y.
#if defined(__AVX512F__)
constexpr int width = 16, tile_rows = 12, tile_columns = 32;
#elif defined(__AVX2__)
constexpr int width = 8, tile_rows = 6, tile_columns = 16;
#else
constexpr int width = 4, tile_rows = 3, tile_columns = 16;
#endif
typedef float Vector __attribute__((vector_size(4 * width), aligned(4), may_alias));
typedef std::uint32_t Bits __attribute__((vector_size(4 * width), aligned(4), may_alias));

/// a b + c; one rounding where the tier has FMA.
inline Vector fused(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

#if defined(__AVX512BF16__)
/// sum + the products of the pairs of bf16 in each word of a and b.
inline Vector add_pairs(Vector sum, Bits a, Bits b) {
  return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
#endif

}  // namespace dsa::cpu::DSA_TIER
