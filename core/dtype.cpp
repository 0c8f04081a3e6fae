#include "core/dtype.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "core/rounding.hpp"

namespace dsa {
namespace {

struct Row {
  Dtype dtype;
  std::string_view name;
  Index bits;
};
constexpr Row table[] = {
    {Dtype::boolean, "BOOL", 8},
    {Dtype::f4, "F4", 4},
    {Dtype::f6_e2m3, "F6_E2M3", 6},
    {Dtype::f6_e3m2, "F6_E3M2", 6},
    {Dtype::u8, "U8", 8},
    {Dtype::i8, "I8", 8},
    {Dtype::f8_e5m2, "F8_E5M2", 8},
    {Dtype::f8_e4m3, "F8_E4M3", 8},
    {Dtype::f8_e8m0, "F8_E8M0", 8},
    {Dtype::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    {Dtype::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    {Dtype::i16, "I16", 16},
    {Dtype::u16, "U16", 16},
    {Dtype::f16, "F16", 16},
    {Dtype::bf16, "BF16", 16},
    {Dtype::i32, "I32", 32},
    {Dtype::u32, "U32", 32},
    {Dtype::f32, "F32", 32},
    {Dtype::c64, "C64", 64},
    {Dtype::f64, "F64", 64},
    {Dtype::i64, "I64", 64},
    {Dtype::u64, "U64", 64},
};

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
template <class T>
void store(std::byte* p, T value) {
  std::memcpy(p, &value, sizeof value);
}

double decode_small(std::uint32_t bits, int exponent_bits, int fraction_bits) {
  const std::uint32_t fraction = bits & ((1u << fraction_bits) - 1);
  const int exponent = static_cast<int>((bits >> fraction_bits) & ((1u << exponent_bits) - 1));
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, 1 - bias - fraction_bits)
                    : std::ldexp((1u << fraction_bits) + fraction, exponent - bias - fraction_bits);
  return (bits >> (exponent_bits + fraction_bits)) & 1 ? -magnitude : magnitude;
}

double f16_value(std::uint16_t bits) {
  if ((bits & 0x7C00) != 0x7C00) return decode_small(bits, 5, 10);
  if (bits & 0x3FF) return std::numeric_limits<double>::quiet_NaN();
  return bits & 0x8000 ? -std::numeric_limits<double>::infinity()
                       : std::numeric_limits<double>::infinity();
}

double e4m3_value(std::uint8_t bits) {
  if ((bits & 0x7F) == 0x7F) return std::numeric_limits<double>::quiet_NaN();
  return decode_small(bits, 4, 3);
}

/// Bits of a value that already is a number of a format of `exponent_bits` and `fraction_bits`.
std::uint32_t encode_small(double x, int exponent_bits, int fraction_bits) {
  const std::uint32_t sign = std::signbit(x) ? 1u << (exponent_bits + fraction_bits) : 0;
  const std::uint32_t top = ((1u << exponent_bits) - 1) << fraction_bits;
  if (std::isnan(x)) return sign | top | ((1u << fraction_bits) - 1);
  if (std::isinf(x)) return sign | top;
  if (x == 0) return sign;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = std::max(std::ilogb(x), 1 - bias);
  const auto units = static_cast<std::uint32_t>(std::ldexp(std::abs(x), fraction_bits - exponent));
  const std::uint32_t hidden = 1u << fraction_bits;
  if (units < hidden) return sign | units;  // subnormal
  return sign | (static_cast<std::uint32_t>(exponent + bias) << fraction_bits) | (units - hidden);
}

template <class Real>
const std::array<Real, 256>& e4m3_table() {
  static const std::array<Real, 256> values = [] {
    std::array<Real, 256> all{};
    for (int i = 0; i < 256; ++i)
      all[static_cast<std::size_t>(i)] =
          static_cast<Real>(e4m3_value(static_cast<std::uint8_t>(i)));
    return all;
  }();
  return values;
}

template <class T, class Real>
void widen(const std::byte* in, Index n, Real* out) {
  for (Index i = 0; i < n; ++i)
    out[i] = static_cast<Real>(load<T>(in + i * static_cast<Index>(sizeof(T))));
}

}  // namespace

std::optional<Dtype> dtype_named(std::string_view name) {
  for (const Row& row : table)
    if (row.name == name) return row.dtype;
  return std::nullopt;
}

std::string_view name_of(Dtype dtype) {
  for (const Row& row : table)
    if (row.dtype == dtype) return row.name;
  return "unknown";
}

Index bits_of(Dtype dtype) {
  for (const Row& row : table)
    if (row.dtype == dtype) return row.bits;
  return 0;
}

bool is_decodable(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64:
    case Dtype::f32:
    case Dtype::f16:
    case Dtype::bf16:
    case Dtype::f8_e4m3:
    case Dtype::boolean:
    case Dtype::u8:
    case Dtype::i8:
    case Dtype::i16:
    case Dtype::u16:
    case Dtype::i32:
    case Dtype::u32:
    case Dtype::i64:
    case Dtype::u64:
      return true;
    default:
      return false;
  }
}

template <class Real>
void decode(Dtype dtype, const std::byte* in, Index n, Real* out) {
  switch (dtype) {
    case Dtype::f64:
      return widen<double>(in, n, out);
    case Dtype::f32:
      return widen<float>(in, n, out);
    case Dtype::f16:
      for (Index i = 0; i < n; ++i)
        out[i] = static_cast<Real>(f16_value(load<std::uint16_t>(in + 2 * i)));
      return;
    case Dtype::bf16:
      for (Index i = 0; i < n; ++i)
        out[i] = static_cast<Real>(std::bit_cast<float>(
            static_cast<std::uint32_t>(load<std::uint16_t>(in + 2 * i)) << 16));
      return;
    case Dtype::f8_e4m3: {
      const auto& values = e4m3_table<Real>();
      for (Index i = 0; i < n; ++i) out[i] = values[static_cast<std::uint8_t>(in[i])];
      return;
    }
    case Dtype::boolean:
    case Dtype::u8:
      return widen<std::uint8_t>(in, n, out);
    case Dtype::i8:
      return widen<std::int8_t>(in, n, out);
    case Dtype::i16:
      return widen<std::int16_t>(in, n, out);
    case Dtype::u16:
      return widen<std::uint16_t>(in, n, out);
    case Dtype::i32:
      return widen<std::int32_t>(in, n, out);
    case Dtype::u32:
      return widen<std::uint32_t>(in, n, out);
    case Dtype::i64:
      return widen<std::int64_t>(in, n, out);
    case Dtype::u64:
      return widen<std::uint64_t>(in, n, out);
    default:
      throw Error("cannot read " + std::string(name_of(dtype)) +
                  " numbers; convert the tensor to F64, F32, F16, BF16 or F8_E4M3");
  }
}
template void decode<float>(Dtype, const std::byte*, Index, float*);
template void decode<double>(Dtype, const std::byte*, Index, double*);
template void decode<long double>(Dtype, const std::byte*, Index, long double*);

void encode(Dtype dtype, const double* in, Index n, std::byte* out) {
  for (Index i = 0; i < n; ++i) {
    const double x = round_to(dtype, in[i]);
    switch (dtype) {
      case Dtype::f64:
        store(out + 8 * i, x);
        break;
      case Dtype::f32:
        store(out + 4 * i, static_cast<float>(x));
        break;
      case Dtype::f16:
        store(out + 2 * i, static_cast<std::uint16_t>(encode_small(x, 5, 10)));
        break;
      case Dtype::bf16:
        store(out + 2 * i, static_cast<std::uint16_t>(
                               std::bit_cast<std::uint32_t>(static_cast<float>(x)) >> 16));
        break;
      default:
        out[i] = static_cast<std::byte>(encode_small(x, 4, 3));
        break;
    }
  }
}

double round_to(Dtype dtype, double x) { return round_to_in_line(dtype, x); }

double round_stochastically(Dtype dtype, double x, double dice) {
  return round_stochastically_in_line(dtype, x, dice);
}

double unit_roundoff(Dtype dtype) { return float_format(dtype).unit_roundoff; }

void detail::refuse_rounding(Dtype dtype) {
  throw Error("cannot round to " + std::string(name_of(dtype)) +
              "; choose F64, F32, F16, BF16 or F8_E4M3");
}

}  // namespace dsa
