// optimized/cpu/kernels/native.hpp — the registers of the tier, as vectors.
//
// Included only by kernels, which are compiled once per tier with DSA_TIER naming it. Everything
// here lies in the tier's own namespace: an inline function compiled under two instruction sets
// and one name would be merged by the linker into either. For the same reason kernels call nothing
// of the standard library that is not a builtin.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#pragma GCC diagnostic push
// GCC 12 finds them in its own AVX-512 intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace dsa::cpu::DSA_TIER {
namespace {  // nothing here may be merged by the linker

/// Lanes of a register; and the block of sums that fits the registers: `tile_rows` rows of x by
/// `tile_columns` columns of y.
#if defined(__AVX512F__)
constexpr int width = 16, tile_rows = 12, tile_columns = 32;
#elif defined(__AVX2__)
constexpr int width = 8, tile_rows = 6, tile_columns = 16;
#else
constexpr int width = 4, tile_rows = 3, tile_columns = 16;
#endif

using Index = std::int64_t;
typedef float Vector __attribute__((vector_size(4 * width), aligned(4), may_alias));
typedef std::int32_t Integers __attribute__((vector_size(4 * width), aligned(4), may_alias));
typedef std::uint32_t Words __attribute__((vector_size(4 * width), aligned(4), may_alias));
/// Four bytes of packed channels: a float, or two bf16, the even channel low.
typedef std::uint32_t Word __attribute__((may_alias));

inline Vector vector_at(const void* x) { return *static_cast<const Vector*>(x); }
inline Integers integers_at(const void* x) { return *static_cast<const Integers*>(x); }
inline Words words_at(const void* x) { return *static_cast<const Words*>(x); }
inline void put(void* x, Vector v) { *static_cast<Vector*>(x) = v; }
inline void put(void* x, Integers v) { *static_cast<Integers*>(x) = v; }
inline Vector fill(float x) { return x - Vector{}; }
inline Integers fill(std::int32_t x) { return x - Integers{}; }
inline Vector as_vector(Integers v) { return (Vector)v; }
inline Integers as_integers(Vector v) { return (Integers)v; }

/// a b + c; one rounding where the tier has FMA.
inline Vector fused(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// Products of two words, added to a sum. A word holds one float, or the bf16 of two
// neighbouring channels.

struct Floats {
  static constexpr int channels = 1;
  static Vector broadcast(const Word* x) { return fill(*reinterpret_cast<const float*>(x)); }
  static Vector add_product(Vector sum, Vector a, Vector b) { return fused(a, b, sum); }
};

#if defined(__AVX512BF16__)
/// vdpbf16ps: two products of bf16 and their sum in fp32. Subnormal numbers are taken for zero.
struct Pairs {
  static constexpr int channels = 2;
  static Vector broadcast(const Word* x) { return (Vector)_mm512_set1_epi32(static_cast<int>(*x)); }
  static Vector add_product(Vector sum, Vector a, Vector b) {
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
};
#endif

/// A float as bf16, to nearest, ties to even; a NaN stays a (quiet) NaN.
inline std::uint16_t narrow(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/// The larger; b where either is NaN.
inline Vector larger(Vector a, Vector b) {
#if defined(__AVX512F__)
  return (Vector)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vector)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

/// relu; a NaN stays one.
inline Vector rectified(Vector x) { return larger(Vector{}, x); }

/// One bit a lane whose comparison was true (all ones).
inline unsigned bits_of(Integers comparison) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)comparison);
#elif defined(__AVX2__)
  return static_cast<unsigned>(_mm256_movemask_ps((__m256)comparison));
#elif defined(__SSE2__)
  return static_cast<unsigned>(_mm_movemask_ps((__m128)comparison));
#else
  unsigned bits = 0;
  for (int i = 0; i < width; ++i) bits |= static_cast<unsigned>(comparison[i] & 1) << i;
  return bits;
#endif
}

// Comparisons as bits. AVX-512's are masks at once, which GCC 12 does not see through bits_of.
#if defined(__AVX512F__)
inline unsigned bits_greater(Integers a, Integers b) {
  return _mm512_cmpgt_epi32_mask((__m512i)a, (__m512i)b);
}
inline unsigned bits_equal(Integers a, Integers b) {
  return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b);
}
inline unsigned bits_not_at_most(Vector a, Vector b) {
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NLE_UQ);
}
#else
inline unsigned bits_greater(Integers a, Integers b) { return bits_of(a > b); }
inline unsigned bits_equal(Integers a, Integers b) { return bits_of(a == b); }
/// True where a is NaN, too.
inline unsigned bits_not_at_most(Vector a, Vector b) { return bits_of(~(a <= b)); }
#endif

#if defined(__AVX2__) && !defined(__AVX512F__)
/// For eight bits, the lanes whose bit is set, ascending.
struct Compressions {
  std::uint8_t lanes[256][8] = {};
  constexpr Compressions() {
    for (int bits = 0; bits < 256; ++bits)
      for (int lane = 0, n = 0; lane < 8; ++lane)
        if (bits >> lane & 1) lanes[bits][n++] = static_cast<std::uint8_t>(lane);
  }
};
inline constexpr Compressions compressions;
#endif

/// Writes the lanes whose bit is set side by side and returns how many there are; `width` numbers
/// may be overwritten.
inline Index put_some(std::int32_t* to, Integers v, unsigned bits) {
#if defined(__AVX512F__)
  // Compressed in a register: the instruction that compresses into memory is slow on Zen 4.
  put(to, (Integers)_mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), (__m512i)v));
  return __builtin_popcount(bits);
#elif defined(__AVX2__)
  const auto* const lanes = reinterpret_cast<const __m128i*>(compressions.lanes[bits]);
  put(to, (Integers)_mm256_permutevar8x32_epi32((__m256i)v,
                                                _mm256_cvtepu8_epi32(_mm_loadl_epi64(lanes))));
  return __builtin_popcount(bits);
#else
  Index n = 0;
  for (int lane = 0; lane < width; ++lane) {
    to[n] = v[lane];
    n += bits >> lane & 1;
  }
  return n;
#endif
}

/// Asks for `bytes` of memory that will be read soon.
inline void prefetch(const std::byte* from, Index bytes) {
  for (Index i = 0; i < bytes; i += 64) __builtin_prefetch(from + i);
}

/// e^x for x <= 0, to 2 units in the last place; 0 where that would be below the normal numbers
/// (x < -87.3); NaN stays NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its series to r^7 (what is left out: r^8 / 8!, less
/// than 2^-27); 2^n by its bits. Adding 1.5 2^23 rounds x log2(e) to an integer, held in the low
/// bits of the sum.
inline Vector exponential(Vector x) {
  constexpr float shift = 0x1.8p23f;
  const Vector shifted = fused(x, fill(0x1.715476p0f), fill(shift));
  const Vector n = shifted - shift;
  // ln 2 in two pieces; n times the first is exact: it has 9 bits, n 8.
  Vector r = fused(n, fill(-0x1.63p-1f), x);
  r = fused(n, fill(0x1.bd0106p-13f), r);
  Vector p = fill(1.0f / 5040);
  p = fused(p, r, fill(1.0f / 720));
  p = fused(p, r, fill(1.0f / 120));
  p = fused(p, r, fill(1.0f / 24));
  p = fused(p, r, fill(1.0f / 6));
  p = fused(p, r, fill(0.5f));
  p = fused(p, r, fill(1.0f));
  p = fused(p, r, fill(1.0f));
  const Integers exponent = (as_integers(shifted) - as_integers(fill(shift)) + 127) << 23;
  const Vector y = p * as_vector(exponent);
  return x < -87.3f ? Vector{} : y;
}

}  // namespace
}  // namespace dsa::cpu::DSA_TIER
