// core/dtype.hpp — the storage types of a checkpoint, and exact conversion to and from double.
//
// Every format here is a subset of double, so widening is exact. Narrowing rounds to nearest,
// ties to even, as the hardware and torch do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/tensor.hpp"

namespace dsa {

/// Storage of bfloat16 and of FP8 E4M3 (OCP, "fn": no infinity, NaN = 0x7f). The arithmetic is
/// whoever's who stores them.
struct bf16 {
  std::uint16_t bits = 0;
};
struct e4m3 {
  std::uint8_t bits = 0;
};

/// The element types a safetensors header may name (safetensors/src/tensor.rs).
enum class Dtype : std::uint8_t {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
};

/// "BF16" -> Dtype::bf16; nothing for a name that safetensors does not know.
std::optional<Dtype> dtype_named(std::string_view name);
std::string_view name_of(Dtype);
Index bits_of(Dtype);

/// True for the formats that decode() reads: F64 F32 F16 BF16 F8_E4M3 and the integers.
bool is_decodable(Dtype);

/// Widens n elements, exactly (64-bit integers: to the nearest). `Real` is float, double or
/// long double; float is exact for every format but F64, F32-wide integers and wider.
template <class Real>
void decode(Dtype, const std::byte* in, Index n, Real* out);

/// Narrows n elements to F64, F32, F16, BF16 or F8_E4M3. Values beyond the largest finite number
/// become infinity, or NaN in F8_E4M3 (which has no infinity).
void encode(Dtype, const double* in, Index n, std::byte* out);

/// x rounded to the nearest number of the format, ties to even.
double round_to(Dtype, double x);

/// x rounded to one of its two neighbours in the format, up with probability proportional to the
/// distance from the lower one; `dice` is uniform in (0, 1). The expectation is x.
/// In F64, where x is representable, the neighbour is x or one unit in the last place beside it.
double round_stochastically(Dtype, double x, double dice);

/// Half the distance from 1 to the next number: 2^-53, 2^-24, 2^-11, 2^-8 (bf16 has 8 bits), 2^-4.
double unit_roundoff(Dtype);

}  // namespace dsa
