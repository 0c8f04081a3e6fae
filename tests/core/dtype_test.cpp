// The storage types, exactly: every code of the small formats, every halfway point between two.
#include "core/dtype.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "core/random.hpp"
#include "tests/catch.hpp"

using namespace dsa;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Small {
  Dtype dtype;
  Index bytes;
  std::uint32_t codes;
  double largest, smallest, roundoff;
};
constexpr Small small_formats[] = {{Dtype::f8_e4m3, 1, 1u << 8, 448, 0x1p-9, 0x1p-4},
                                   {Dtype::f16, 2, 1u << 16, 65504, 0x1p-24, 0x1p-11},
                                   {Dtype::bf16, 2, 1u << 16, 0x1.FEp127, 0x1p-133, 0x1p-8}};

template <class Real = double>
Real value_of(const Small& f, std::uint32_t code) {
  const auto bits = static_cast<std::uint16_t>(code);
  Real x = 0;
  decode(f.dtype, reinterpret_cast<const std::byte*>(&bits), 1, &x);  // little-endian
  return x;
}

std::uint32_t code_of(const Small& f, double x) {
  std::uint16_t bits = 0;
  encode(f.dtype, &x, 1, reinterpret_cast<std::byte*>(&bits));
  return bits;
}

/// The finite values at or above zero, in order of their codes: that is in order of size.
std::vector<double> positive_values(const Small& f) {
  std::vector<double> values;
  for (std::uint32_t code = 0; code < f.codes / 2; ++code)
    if (const double x = value_of(f, code); std::isfinite(x)) values.push_back(x);
  return values;
}

}  // namespace

TEST_CASE("every code survives decoding and encoding", "[dtype]") {
  for (const Small& f : small_formats) {
    std::uint32_t wrong = 0, not_numbers = 0;
    for (std::uint32_t code = 0; code < f.codes; ++code) {
      const double x = value_of(f, code);
      if (std::isnan(x)) {
        ++not_numbers;
        if (!std::isnan(value_of(f, code_of(f, x)))) ++wrong;
      } else if (code_of(f, x) != code) {
        ++wrong;
      }
      const auto as_float = static_cast<double>(value_of<float>(f, code));
      if (!(as_float == x) && !std::isnan(x)) ++wrong;
    }
    INFO(name_of(f.dtype));
    CHECK(wrong == 0);
    const std::map<Dtype, std::uint32_t> expected = {
        {Dtype::f8_e4m3, 2}, {Dtype::f16, 2 * 1023}, {Dtype::bf16, 2 * 127}};
    CHECK(not_numbers == expected.at(f.dtype));
    const auto values = positive_values(f);
    CHECK(values.front() == 0);
    CHECK(values[1] == f.smallest);
    CHECK(values.back() == f.largest);
    CHECK(std::is_sorted(values.begin(), values.end()));
    CHECK(unit_roundoff(f.dtype) == f.roundoff);
  }
}

TEST_CASE("rounding goes to the nearer neighbour, halfway to the even code", "[dtype]") {
  for (const Small& f : small_formats) {
    const auto values = positive_values(f);
    Index wrong = 0;
    const auto expect = [&](double x, double rounded) {
      if (round_to(f.dtype, x) != rounded || round_to(f.dtype, -x) != -rounded) ++wrong;
      if (code_of(f, x) != code_of(f, rounded)) ++wrong;
    };
    for (std::size_t i = 0; i + 1 < values.size(); ++i) {
      const double low = values[i], high = values[i + 1], middle = (low + high) / 2;
      expect(low, low);
      expect(middle, i % 2 == 0 ? low : high);
      expect(std::nextafter(middle, 0), low);
      expect(std::nextafter(middle, infinity), high);
    }
    INFO(name_of(f.dtype));
    CHECK(wrong == 0);
  }
}

TEST_CASE("random numbers are rounded as brute force rounds them", "[dtype]") {
  for (const Small& f : small_formats) {
    const auto values = positive_values(f);
    Index wrong = 0;
    for (std::uint64_t i = 0; i < 20000; ++i) {
      const double low = std::log2(f.smallest) - 3, high = std::log2(f.largest);
      const double x = std::exp2(low + (high - low) * uniform(1, i));
      const auto above = std::lower_bound(values.begin(), values.end(), x);
      const double nearest = *above - x < x - *(above - 1) ? *above : *(above - 1);
      if (round_to(f.dtype, x) != nearest) ++wrong;
    }
    INFO(name_of(f.dtype));
    CHECK(wrong == 0);
  }
}

TEST_CASE("beyond the largest number: infinity, or NaN where there is none", "[dtype]") {
  CHECK(round_to(Dtype::f8_e4m3, 464) == 448);  // halfway to 480, which would be odd
  CHECK(std::isnan(round_to(Dtype::f8_e4m3, std::nextafter(464, infinity))));
  CHECK(std::isnan(round_to(Dtype::f8_e4m3, infinity)));
  CHECK((code_of(small_formats[0], 1e9) & 0x7F) == 0x7F);
  CHECK(round_to(Dtype::f16, std::nextafter(65520, 0)) == 65504);
  CHECK(round_to(Dtype::f16, 65520) == infinity);
  CHECK(round_to(Dtype::bf16, -0x1.FFp127) == -infinity);
  CHECK(round_to(Dtype::bf16, std::nextafter(0x1.FFp127, 0)) == 0x1.FEp127);
  CHECK(round_to(Dtype::f32, 1e39) == infinity);
  for (Dtype dtype : {Dtype::f8_e4m3, Dtype::f16, Dtype::bf16, Dtype::f32, Dtype::f64}) {
    CHECK(std::isnan(round_to(dtype, std::numeric_limits<double>::quiet_NaN())));
    CHECK(std::signbit(round_to(dtype, -0.0)));
    CHECK(round_to(dtype, 1.0) == 1.0);
  }
  CHECK_THROWS_WITH(round_to(Dtype::i32, 1), Catch::Contains("cannot round to I32"));
}

TEST_CASE("the wide formats round once", "[dtype]") {
  const double between = 1 + 0x1p-24;  // halfway between two floats
  CHECK(round_to(Dtype::f32, between) == 1);
  CHECK(round_to(Dtype::f32, std::nextafter(between, 2)) == 1 + 0x1p-23);
  CHECK(round_to(Dtype::f64, between) == between);
  // Through float this number would round up twice: it lies just below halfway in bf16.
  const double tricky = 1 + 0x1p-8 - 0x1p-30;
  CHECK(round_to(Dtype::bf16, tricky) == 1);
  CHECK(unit_roundoff(Dtype::f32) == 0x1p-24);
  CHECK(unit_roundoff(Dtype::f64) == 0x1p-53);
}

TEST_CASE("stochastic rounding picks a neighbour and is right on average", "[dtype]") {
  constexpr int draws = 4096;
  for (const Small& f : small_formats) {
    const auto values = positive_values(f);
    for (double x : {1.0, 1.03, 1.9999, 0.3, 7.77, 100.1, 2.5 * f.smallest}) {
      const auto above = std::lower_bound(values.begin(), values.end(), x);
      const double high = *above, low = high == x ? x : *(above - 1);
      double sum = 0, negative = 0;
      for (int i = 0; i < draws; ++i) {
        const double dice = (i + 0.5) / draws;
        const double rounded = round_stochastically(f.dtype, x, dice);
        REQUIRE((rounded == low || rounded == high));
        sum += rounded;
        negative += round_stochastically(f.dtype, -x, dice);
      }
      INFO(name_of(f.dtype) << " " << x);
      // The dice are evenly spaced, so the count of either neighbour is exact to one draw.
      CHECK(std::abs(sum / draws - x) <= (high - low) / draws);
      CHECK(std::abs(negative / draws + x) <= (high - low) / draws);
    }
  }
}

TEST_CASE("stochastic rounding in F64 moves by one unit in the last place at most", "[dtype]") {
  const double x = 1.5, unit = 0x1p-52;
  CHECK(round_stochastically(Dtype::f64, x, 0.1) == x - unit);
  CHECK(round_stochastically(Dtype::f64, x, 0.5) == x);
  CHECK(round_stochastically(Dtype::f64, x, 0.9) == x + unit);
  CHECK(round_stochastically(Dtype::f64, 0, 0.9) == 0);
}

TEST_CASE("dtypes have the names of the safetensors format", "[dtype]") {
  for (const char* name : {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "I16", "U16", "F16",
                           "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64"}) {
    REQUIRE(dtype_named(name));
    CHECK(name_of(*dtype_named(name)) == name);
  }
  CHECK_FALSE(dtype_named("F128"));
  CHECK(bits_of(Dtype::f8_e4m3) == 8);
  CHECK(bits_of(Dtype::f64) == 64);
  CHECK(is_decodable(Dtype::i64));
  CHECK_FALSE(is_decodable(Dtype::f8_e5m2));
  std::byte zero{};
  double out = 0;
  CHECK_THROWS_WITH(decode(Dtype::f8_e5m2, &zero, 1, &out),
                    Catch::Contains("cannot read F8_E5M2 numbers; convert the tensor"));
}
