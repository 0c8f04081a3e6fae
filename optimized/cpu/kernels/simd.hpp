// optimized/cpu/kernels/simd.hpp — sixteen floats at a time, in the instructions of the tier.
//
// Included only by kernels, which are compiled once per tier with DSA_TIER naming it. Everything
// here lies in the tier's own namespace: an inline function compiled under two instruction sets
// and one name would be merged by the linker into either. For the same reason kernels call nothing
// of the standard library that is not a builtin.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace dsa::cpu::DSA_TIER {

constexpr int lanes = 16;
typedef float Floats __attribute__((vector_size(4 * lanes), aligned(4), may_alias));
typedef std::int32_t Ints __attribute__((vector_size(4 * lanes), aligned(4), may_alias));

inline Floats load(const float* x) { return *reinterpret_cast<const Floats*>(x); }
inline void store(float* x, Floats v) { *reinterpret_cast<Floats*>(x) = v; }
inline Floats broadcast(float x) { return Floats{} + x; }

/// a b + c; one rounding where the tier has FMA.
inline Floats multiply_add(Floats a, Floats b, Floats c) {
#ifdef __AVX512F__
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
  return a * b + c;
#endif
}

inline Floats maximum(Floats a, Floats b) { return a > b ? a : b; }

/// The sum of the lanes, by halves: the same order on every tier.
inline float sum(Floats v) {
  float x[lanes];
  store(x, v);
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

/// Widens sixteen bf16.
inline Floats widen(const std::uint16_t* x) {
  typedef std::uint16_t Shorts __attribute__((vector_size(2 * lanes), aligned(2), may_alias));
  typedef std::uint32_t Words __attribute__((vector_size(4 * lanes)));
  const Words bits = __builtin_convertvector(*reinterpret_cast<const Shorts*>(x), Words) << 16;
  return (Floats)bits;
}

/// One float to bf16, to nearest, ties to even; a NaN stays a (quiet) NaN.
inline std::uint16_t narrow(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace dsa::cpu::DSA_TIER
