// core/rounding.hpp — rounding one number to a format, in line: an emulated run rounds millions.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/dtype.hpp"

namespace dsa {

/// A binary floating-point format: 1 sign bit, then the exponent, then the explicit fraction.
struct FloatFormat {
  int dropped = 0;            // bits of a double's fraction that it has not
  double min_normal = 0;      // its smallest normal number
  double max = 0;             // its largest finite number
  double unit_roundoff = 0;   // half the distance from 1 to the next number; 0: no such format
  double dropped_scale = 0;   // 2^dropped
  bool has_infinity = false;  // otherwise what is too large becomes NaN
};

namespace detail {

constexpr double power_of_two(int n) {  // of normal numbers
  return std::bit_cast<double>(static_cast<std::uint64_t>(n + 1023) << 52);
}

constexpr FloatFormat format_with(int fraction, int min_exponent, double max, bool has_infinity) {
  return {52 - fraction,
          power_of_two(min_exponent),
          max,
          power_of_two(-fraction - 1),
          power_of_two(52 - fraction),
          has_infinity};
}

inline constexpr auto float_formats = [] {
  std::array<FloatFormat, static_cast<std::size_t>(Dtype::u64) + 1> all{};
  const auto at = [&](Dtype dtype) -> FloatFormat& { return all[static_cast<std::size_t>(dtype)]; };
  at(Dtype::f64) = format_with(52, -1022, std::numeric_limits<double>::max(), true);
  at(Dtype::f32) =
      format_with(23, -126, static_cast<double>(std::numeric_limits<float>::max()), true);
  at(Dtype::f16) = format_with(10, -14, 65504, true);
  at(Dtype::bf16) = format_with(7, -126, 0x1.FEp127, true);
  at(Dtype::f8_e4m3) = format_with(3, -6, 448, false);
  return all;
}();

[[noreturn]] void refuse_rounding(Dtype);

}  // namespace detail

/// Error: not one of F64, F32, F16, BF16 and F8_E4M3.
inline const FloatFormat& float_format(Dtype dtype) {
  const FloatFormat& f = detail::float_formats[static_cast<std::size_t>(dtype)];
  if (f.unit_roundoff == 0) [[unlikely]]
    detail::refuse_rounding(dtype);
  return f;
}

/// The spacing of the format's numbers around x, finite; around 0 that of the smallest.
inline double spacing(const FloatFormat& f, double x) {
  constexpr std::uint64_t exponent = std::uint64_t{0x7FF} << 52;
  const double power = std::bit_cast<double>(std::bit_cast<std::uint64_t>(x) & exponent);
  return std::max(power, f.min_normal) * (2 * f.unit_roundoff);
}

/// x was rounded to a number beyond the format's largest.
inline double overflowed(const FloatFormat& f, double x) {
  if (!f.has_infinity) return std::numeric_limits<double>::quiet_NaN();
  return std::copysign(std::numeric_limits<double>::infinity(), x);
}

inline double round_to_in_line(Dtype dtype, double x) {
  if (dtype == Dtype::f64) return x;
  if (dtype == Dtype::f32) return static_cast<double>(static_cast<float>(x));
  const FloatFormat& f = float_format(dtype);
  if (!std::isfinite(x)) return f.has_infinity || std::isnan(x) ? x : overflowed(f, x);
  if (x == 0) return x;
  // nearbyint ties to even in the default rounding mode; x / step and its product are exact.
  const double step = spacing(f, x);
  const double rounded = std::nearbyint(x / step) * step;
  return std::abs(rounded) > f.max ? overflowed(f, x) : rounded;
}

inline double round_stochastically_in_line(Dtype dtype, double x, double die) {
  const FloatFormat& f = float_format(dtype);
  if (!std::isfinite(x) || x == 0) return x;
  // No branch on a die: the processor cannot guess it.
  if (dtype == Dtype::f64) return x + spacing(f, x) * ((die >= 0.75) - (die < 0.25));
  // Adds a random fraction of a step to the magnitude and truncates. Below the normal numbers of
  // the format the step is fixed; above, truncating bits of the double is the same and faster.
  if (std::abs(x) < f.min_normal) [[unlikely]] {
    const double step = spacing(f, x);
    return std::copysign(std::floor(std::abs(x) / step + die) * step, x);
  }
  const auto fraction = static_cast<std::int64_t>(die * f.dropped_scale);
  const std::uint64_t bits =
      (std::bit_cast<std::uint64_t>(x) + static_cast<std::uint64_t>(fraction)) >> f.dropped
                                                                                      << f.dropped;
  const double rounded = std::bit_cast<double>(bits);
  return std::abs(rounded) > f.max ? overflowed(f, x) : rounded;
}

}  // namespace dsa
