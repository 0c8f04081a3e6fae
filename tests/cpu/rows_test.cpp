// Operations of the CPU backend on single rows: embed, rope, narrowing and FP8.
#include <cmath>
#include <limits>

#include "optimized/cpu/ops/embed.hpp"
#include "optimized/cpu/ops/quantise.hpp"
#include "optimized/cpu/ops/rope.hpp"
#include "optimized/shared/rope_table.hpp"
#include "reference/ops/hadamard.hpp"
#include "reference/ops/rope.hpp"
#include "reference/precision/official_fp8.hpp"
#include "tests/catch.hpp"
#include "tests/cpu/helpers.hpp"
#include "verify/measure/bounds.hpp"

using namespace dsa;
using namespace dsa::test;
using verify::unit_roundoff_fp32;

namespace {

float float_at(const e4m3* x) {
  float y;
  std::memcpy(&y, &x->bits, sizeof y);
  return y;
}

/// Rows of every size: subnormal in e4m3, below the smallest scale, zero, and with a NaN.
Tensor<float, 2> rows_of_all_sizes(Index rows, Index C) {
  auto x = draw<2>({rows, C}, 1);
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < C; ++c) {
      x(r, c) *= std::exp2(static_cast<float>(r % 40 - 25));
      if (c % 3 == 1) x(r, c) *= 0x1p-7f;
      if (r % 41 == 40) x(r, c) = 0;
    }
  return x;
}

/// The first C channels of x, quantised by the reference: numbers and scales.
struct Quantised {
  Tensor<double, 2> numbers, scales;
};
Quantised reference_e4m3(const Tensor<double, 2>& x, Index C, Index run, bool ue8m0) {
  const Index rows = x.shape()[0];
  Quantised q{Tensor<double, 2>({rows, C}), Tensor<double, 2>({rows, (C + run - 1) / run})};
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < C; ++c) q.numbers(r, c) = x(r, c);
  reference::quantise_e4m3(q.numbers, q.scales, run, ue8m0);
  return q;
}

template <class X>
Tensor<double, 2> widened(const Tensor<X, 2>& x) {
  Tensor<double, 2> y(x.shape());
  for (Index i = 0; i < x.size(); ++i) y.data()[i] = number(x.data()[i]);
  return y;
}

bool same(double a, double b) {
  return a == b ? std::signbit(a) == std::signbit(b) : std::isnan(a) && std::isnan(b);
}

Rope yarn() {
  Rope rope;
  rope.yarn = true;
  rope.factor = 40;
  rope.original_max_position_embeddings = 4096;
  return rope;
}

}  // namespace

TEST_CASE("a rope table is the reference's, rounded once, at positions up to a million", "[cpu]") {
  std::vector<Rope> ropes(6, yarn());
  ropes[0] = Rope();
  ropes[1].mscale = ropes[1].mscale_all_dim = 1;
  ropes[2].mscale = 0.7, ropes[2].mscale_all_dim = 1;
  ropes[3].attention_factor = 1.25;
  ropes[4].truncate = false;
  ropes[5].original_max_position_embeddings = 2;  // low == high
  const std::vector<Index> positions = {0, 1, 2, 4095, 163'839, 999'999, 1'000'000};
  const Index T = static_cast<Index>(positions.size());
  for (const Rope& rope : ropes)
    for (const Index half : {1, 16, 32}) {
      Tensor<float, 2> cos({T, half}), sin({T, half});
      Tensor<long double, 2> cos_exact({T, half}), sin_exact({T, half});
      rope_table(cos, sin, positions, rope);
      reference::rope_table<long double>(cos_exact, sin_exact, positions, rope);
      // The angle has four roundings in double, of pow and of the products; a cosine moves by as
      // much. Then one rounding to float.
      for (Index i = 0; i < cos.size(); ++i) {
        const double position = static_cast<double>(positions[static_cast<std::size_t>(i / half)]);
        const double amplitude = reference::rope_attention_factor(rope);
        const double allowed =
            amplitude *
            (unit_roundoff_fp32 + verify::gamma(8, verify::unit_roundoff_fp64) * (1 + position));
        INFO("rope " << &rope - ropes.data() << ", half " << half << ", place " << i);
        CHECK(std::abs(static_cast<double>(cos.data()[i] - cos_exact.data()[i])) <= allowed);
        CHECK(std::abs(static_cast<double>(sin.data()[i] - sin_exact.data()[i])) <= allowed);
      }
    }
}

TEST_CASE("rope turns its channels in both layouts and no others", "[cpu]") {
  const Index T = 3, heads = 5, width = 40, half = 9, first = 13;
  const auto before = draw<3>({T, heads, width}, 1);
  const std::vector<Index> positions = {0, 7, 1000};
  Tensor<float, 2> cos({T, half}), sin({T, half});
  rope_table(cos, sin, positions, Rope());
  for (const cpu::Tier tier : cpu::usable_tiers())
    for (const auto layout : {RopeLayout::interleaved, RopeLayout::half}) {
      Tensor<float, 3> x = before;
      cpu::rope({tier}, x, cos, sin, first, layout);
      INFO(name_of(tier));
      for (Index t = 0; t < T; ++t)
        for (Index h = 0; h < heads; ++h) {
          std::vector<double> expected(&before(t, h, 0), &before(t, h, 0) + width);
          std::vector<double> magnitude(expected.size());
          for (Index i = 0; i < half; ++i) {
            const bool interleaved = layout == RopeLayout::interleaved;
            const auto a = static_cast<std::size_t>(first + (interleaved ? 2 * i : i));
            const auto b = a + static_cast<std::size_t>(interleaved ? 1 : half);
            const double x0 = expected[a], x1 = expected[b];
            expected[a] = x0 * cos(t, i) - x1 * sin(t, i);
            expected[b] = x1 * cos(t, i) + x0 * sin(t, i);
            magnitude[a] = std::abs(x0 * cos(t, i)) + std::abs(x1 * sin(t, i));
            magnitude[b] = std::abs(x1 * cos(t, i)) + std::abs(x0 * sin(t, i));
          }
          for (Index c = 0; c < width; ++c)
            CHECK(std::abs(x(t, h, c) - expected[static_cast<std::size_t>(c)]) <=
                  verify::gamma(2, unit_roundoff_fp32) * magnitude[static_cast<std::size_t>(c)]);
        }
    }
  Tensor<float, 3> x = before;
  CHECK_THROWS_WITH(
      cpu::rope({}, x, cos, sin, 30, RopeLayout::half),
      "rope turns channels 30 to 48 of heads of 40; expected them to lie within the head");
}

TEST_CASE("embed takes rows of a table, and refuses tokens outside it", "[cpu]") {
  const auto table = draw<2>({6, 21}, 1);
  const auto table16 = stored<bf16>(table);
  Tensor<std::int32_t, 1> tokens({3});
  tokens(0) = 5;
  tokens(1) = 0;
  tokens(2) = 5;
  for (const cpu::Tier tier : cpu::usable_tiers()) {
    Tensor<float, 2> y({3, 21}), y_from16({3, 21});
    Tensor<bf16, 2> y16({3, 21}), y16_from16({3, 21});
    cpu::embed<float, float>({tier}, y, table, tokens);
    cpu::embed<float, bf16>({tier}, y_from16, table16, tokens);
    cpu::embed<bf16, float>({tier}, y16, table, tokens);
    cpu::embed<bf16, bf16>({tier}, y16_from16, table16, tokens);
    for (Index t = 0; t < 3; ++t)
      for (Index c = 0; c < 21; ++c) {
        CHECK(y(t, c) == table(tokens(t), c));
        CHECK(y_from16(t, c) == number(table16(tokens(t), c)));
        CHECK(y16(t, c).bits == table16(tokens(t), c).bits);
        CHECK(y16_from16(t, c).bits == table16(tokens(t), c).bits);
      }
  }
  Tensor<float, 2> y({3, 21});
  for (const std::int32_t token : {-1, 6}) {
    tokens(1) = token;
    CHECK_THROWS_WITH(
        (cpu::embed<float, float>({}, y, table, tokens)),
        "token 1 is " + std::to_string(token) + "; expected one of a vocabulary of 6");
  }
}

TEST_CASE("to_bf16 rounds to nearest, ties to even, in every tier", "[cpu]") {
  auto x = rows_of_all_sizes(60, 37);
  x(0, 0) = 1 + 0x1p-8f, x(0, 1) = 1 + 0x3p-8f;  // ties
  x(0, 2) = 0x1.ffp127f;
  x(0, 3) = -0.0f;
  x(0, 4) = 0x1p-149f;
  x(0, 5) = std::numeric_limits<float>::infinity();
  for (const cpu::Tier tier : cpu::usable_tiers()) {
    Tensor<bf16, 2> y(x.shape());
    cpu::to_bf16({tier}, y, x);
    CHECK(same_bits(y, stored<bf16>(x)));
    Tensor<float, 2> nan({1, 1}, std::nanf(""));
    Tensor<bf16, 2> one({1, 1});
    cpu::to_bf16({tier}, one, nan);
    CHECK(std::isnan(number(one(0, 0))));
  }
}

TEST_CASE("latent rows hold the reference's e4m3, bit for bit", "[cpu]") {
  for (const Index R : {512, 200})
    for (const bool ue8m0 : {false, true}) {
      const Index T = 90, P = 6, runs = (R + 127) / 128, width = fp8_latent_bytes(R, P);
      auto x = rows_of_all_sizes(T, R + P);
      x(3, 5) = std::nanf("");
      const Quantised expected = reference_e4m3(widened(x), R, 128, ue8m0);
      for (const cpu::Tier tier : cpu::usable_tiers()) {
        Tensor<e4m3, 2> y({T, width});
        cpu::latent_e4m3_rows({tier}, y, x, R, ue8m0);
        INFO(name_of(tier) << ", R " << R << ", ue8m0 " << ue8m0);
        Index wrong = 0;
        for (Index t = 0; t < T; ++t) {
          for (Index r = 0; r < R; ++r) wrong += !same(number(y(t, r)), expected.numbers(t, r));
          for (Index i = 0; i < runs; ++i)
            wrong += float_at(&y(t, R + 4 * i)) != expected.scales(t, i);
          for (Index p = 0; p < P; ++p) {
            bf16 rope;
            std::memcpy(&rope.bits, &y(t, R + 4 * runs + 2 * p).bits, 2);
            wrong += rope.bits != to_bf16(x(t, R + p)).bits;
          }
        }
        CHECK(wrong == 0);
      }
    }
}

TEST_CASE("rotated rows hold the reference's e4m3, bit for bit where the rotation is exact",
          "[cpu]") {
  // Sums of 64 multiples of 1/8 are exact, and so is their eighth.
  const Index rows = 50, D = 64;
  Tensor<float, 2> x({rows, D});
  for (Index i = 0; i < x.size(); ++i)
    x.data()[i] = static_cast<float>(dyadic(1, static_cast<std::uint64_t>(i)));
  Tensor<double, 2> rotated = widened(x);
  reference::hadamard<double>(rotated);
  for (double& value : rotated) value = round_to(Dtype::bf16, value);
  for (const bool ue8m0 : {false, true}) {
    const Quantised expected = reference_e4m3(rotated, D, D, ue8m0);
    for (const cpu::Tier tier : cpu::usable_tiers()) {
      Tensor<e4m3, 2> y({rows, D}), with_scale({rows, D + 4});
      Tensor<float, 1> scale({rows});
      cpu::hadamard_e4m3({tier}, y, scale, x, ue8m0);
      cpu::hadamard_e4m3_rows({tier}, with_scale, x, ue8m0);
      INFO(name_of(tier) << ", ue8m0 " << ue8m0);
      Index wrong = 0;
      for (Index r = 0; r < rows; ++r) {
        wrong += scale(r) != expected.scales(r, 0);
        wrong += float_at(&with_scale(r, D)) != expected.scales(r, 0);
        for (Index d = 0; d < D; ++d) {
          wrong += !same(number(y(r, d)), expected.numbers(r, d));
          wrong += with_scale(r, d).bits != y(r, d).bits;
        }
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("what e4m3 keeps of a row, rotated or not, is the reference's", "[cpu]") {
  const Index rows = 50, D = 64;
  Tensor<float, 2> x({rows, D});
  for (Index i = 0; i < x.size(); ++i)
    x.data()[i] = static_cast<float>(dyadic(2, static_cast<std::uint64_t>(i))) *
                  (1 + static_cast<float>(i % 3) * 0x1p-12f);  // not all are bf16
  for (const bool rotated : {false, true}) {
    Tensor<double, 2> stored = widened(x);
    for (double& value : stored) value = round_to(Dtype::bf16, value);
    if (rotated) reference::hadamard<double>(stored);
    for (double& value : stored) value = round_to(Dtype::bf16, value);
    const Quantised expected = reference_e4m3(stored, D, D, rotated);
    Tensor<float, 2> y = x;
    cpu::through_e4m3({}, y, rotated, rotated);
    Index wrong = 0;
    for (Index r = 0; r < rows; ++r)
      for (Index d = 0; d < D; ++d)
        wrong += !same(y(r, d), static_cast<float>(static_cast<double>(expected.numbers(r, d)) *
                                                   static_cast<double>(expected.scales(r, 0))));
    CHECK(wrong == 0);
  }
  Tensor<float, 2> y = x;
  cpu::through_bf16(y);
  for (Index i = 0; i < x.size(); ++i)
    REQUIRE(y.data()[i] == static_cast<float>(round_to(Dtype::bf16, x.data()[i])));
}

TEST_CASE("the rotation refuses head sizes that are no power of two", "[cpu]") {
  for (const Index D : {Index{96}, Index{2048}}) {
    Tensor<float, 2> x({1, D});
    Tensor<e4m3, 2> y({1, D});
    Tensor<float, 1> scale({1});
    CHECK_THROWS_WITH(cpu::hadamard_e4m3({}, y, scale, x, false),
                      "the Hadamard rotation needs a head size that is a power of two up to 1024, "
                      "got " +
                          std::to_string(D));
  }
}
