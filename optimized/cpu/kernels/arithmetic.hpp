// optimized/cpu/kernels/arithmetic.hpp — rows of every storage as the words of a product.
//
// FloatRows works on every tier and widens bf16 and e4m3 to floats, exactly. PairRows keeps bf16,
// and turns e4m3 into it, for tiers that multiply pairs of bf16 (native.hpp).
#pragma once

#include "optimized/cpu/kernels/native.hpp"
#include "optimized/cpu/kernels/storage.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {  // nothing here may be merged by the linker

/// Rounds to bf16, ties to even; a NaN stays one. The result is a float.
inline Vector rounded_to_bf16(Vector x) {
  const Integers bits = as_integers(x);
  const Integers odd = bits >> 16 & 1;
  const Integers rounded = (bits + 0x7fff + odd) & ~0xffff;
  return x == x ? as_vector(rounded) : fill(__builtin_nanf(""));
}

/// `width` e4m3, exactly.
inline Vector decode_e4m3(const std::uint8_t* x) {
  typedef std::uint8_t Bytes __attribute__((vector_size(width), aligned(1), may_alias));
  const Integers bits = __builtin_convertvector(*reinterpret_cast<const Bytes*>(x), Integers);
  const Integers magnitude = bits & 0x7f;
  // (8 + m) 2^(e-10), and m 2^-9 below the normal numbers: the exponent of e = 1, no hidden 8.
  const Integers is_normal = magnitude > 7;
  const Integers exponent = is_normal ? magnitude >> 3 : fill(1);
  const Integers mantissa = (magnitude & 7) + (is_normal & 8);
  const Vector value =
      __builtin_convertvector(mantissa, Vector) * as_vector((exponent + 117) << 23);
  const Vector checked = magnitude == 0x7f ? fill(__builtin_nanf("")) : value;
  return as_vector(as_integers(checked) | (bits & 0x80) << 24);
}

struct FloatRows : Floats {
  using Channel = float;

  static void widen_bf16(Channel* to, const std::byte* from, Index n) {
    for (Index i = 0; i < n; ++i) {
      std::uint16_t bits;
      std::memcpy(&bits, from + 2 * i, 2);
      to[i] = __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16);
    }
  }

  static constexpr Index e4m3_at_once = width;
  /// Exactly; or times a scale, the product rounded to bf16.
  static void widen_e4m3(Channel* to, const std::uint8_t* from, const float* scale) {
    const Vector value = decode_e4m3(from);
    put(to, scale ? rounded_to_bf16(value * *scale) : value);
  }
};

#ifdef __AVX512BF16__
/// The bf16 of the 128 magnitudes of e4m3.
struct Magnitudes {
  std::uint16_t bits[128] = {};
  constexpr Magnitudes() {
    for (int i = 0; i < 128; ++i) {
      // m 2^-9 below the normal numbers, by doubling; otherwise the exponent's bias is moved.
      int mantissa = i, exponent = 121;
      for (; mantissa < 8 && mantissa > 0; --exponent) mantissa *= 2;
      bits[i] = static_cast<std::uint16_t>(i >= 8 ? (i << 4) + (120 << 7)
                                           : i    ? exponent << 7 | (mantissa & 7) << 4
                                                  : 0);
    }
    bits[127] = 0x7fc0;
  }
};
inline constexpr Magnitudes magnitudes;

struct PairRows : Pairs {
  using Channel = std::uint16_t;

  static void widen_bf16(Channel* to, const std::byte* from, Index n) {
    std::memcpy(to, from, static_cast<std::size_t>(2 * n));
  }

  static constexpr Index e4m3_at_once = 32;
  static void widen_e4m3(Channel* to, const std::uint8_t* from, const float* scale) {
    const __m512i* const table = reinterpret_cast<const __m512i*>(magnitudes.bits);
    const __m512i x =
        _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    const __m512i low =
        _mm512_permutex2var_epi16(_mm512_loadu_si512(table), x, _mm512_loadu_si512(table + 1));
    const __m512i high =
        _mm512_permutex2var_epi16(_mm512_loadu_si512(table + 2), x, _mm512_loadu_si512(table + 3));
    const __mmask32 is_high = _mm512_test_epi16_mask(x, _mm512_set1_epi16(0x40));
    const __m512i sign = _mm512_slli_epi16(_mm512_and_si512(x, _mm512_set1_epi16(0x80)), 8);
    __m512i value = _mm512_or_si512(_mm512_mask_blend_epi16(is_high, low, high), sign);
    if (scale) {
      const __m512 by = _mm512_set1_ps(*scale);
      const __m512 even = (__m512)_mm512_slli_epi32(value, 16),
                   odd = (__m512)_mm512_and_si512(value, _mm512_set1_epi32(-0x10000));
      const __m512i evens = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even * by)),
                    odds = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd * by));
      value = _mm512_or_si512(evens, _mm512_slli_epi32(odds, 16));
    }
    _mm512_storeu_si512(to, value);
  }
};
using Bf16Rows = PairRows;
#else
using Bf16Rows = FloatRows;
#endif

/// The arithmetic for a storage: f(FloatRows()) or f(PairRows()).
template <class F>
auto with_arithmetic(Storage storage, F f) {
  return storage == Storage::f32 ? f(FloatRows()) : f(Bf16Rows());
}

/// n e4m3 as channels; `scale` as in FloatRows::widen_e4m3.
template <class A>
void widen_e4m3(typename A::Channel* to, const std::uint8_t* from, Index n, const float* scale) {
  constexpr Index run = A::e4m3_at_once;
  Index i = 0;
  for (; i + run <= n; i += run) A::widen_e4m3(to + i, from + i, scale);
  if (i == n) return;
  std::uint8_t bytes[run] = {};
  typename A::Channel channels[run];
  std::memcpy(bytes, from + i, static_cast<std::size_t>(n - i));
  A::widen_e4m3(channels, bytes, scale);
  std::memcpy(to + i, channels, static_cast<std::size_t>(n - i) * sizeof channels[0]);
}

/// A row of n channels, no scale, and zeros behind them up to padded(n).
template <class A>
void widen_row(typename A::Channel* to, const std::byte* from, Storage storage, Index n) {
  if (storage == Storage::f32)
    std::memcpy(to, from, static_cast<std::size_t>(4 * n));
  else if (storage == Storage::bf16)
    A::widen_bf16(to, from, n);
  else
    widen_e4m3<A>(to, reinterpret_cast<const std::uint8_t*>(from), n, nullptr);
  for (Index i = n; i < padded(n); ++i) to[i] = 0;
}

}  // namespace
}  // namespace dsa::cpu::DSA_TIER
