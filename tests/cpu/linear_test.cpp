// Packed matrices and their products, in every tier, AMX's tiles in software included.
#include "optimized/cpu/kernels/linear.hpp"

#include <cmath>

#include "optimized/cpu/ops/linear.hpp"
#include "tests/catch.hpp"
#include "tests/cpu/helpers.hpp"
#include "verify/measure/bounds.hpp"

namespace dsa::cpu::tiles_in_software {
LinearKernel linear_piece;
}

using namespace dsa;
using namespace dsa::test;

namespace {

template <class X>
constexpr Dtype dtype_of = std::is_same_v<X, float> ? Dtype::f32 : Dtype::bf16;

template <class Y, class X>
Tensor<Y, 2> product(cpu::Tier tier, const Tensor<X, 2>& x, const cpu::Matrix& w,
                     const Tensor<float, 1>& bias = {}) {
  Tensor<Y, 2> y({x.shape()[0], w.out()});
  ScratchMemory scratch(cpu::linear_scratch(w.in()));
  cpu::linear<Y, X>({tier}, y.view(), x.view(), w, bias, scratch);
  return y;
}

/// Elements of y farther from x w + bias than the rounding of products and sums allows. A
/// product and its sum round at most twice; n products, their runs and the bias.
template <class X>
Index wrong(const Tensor<float, 2>& y, const Tensor<X, 2>& x, const Tensor<float, 2>& w,
            const Tensor<float, 1>& bias = {}) {
  const Index n = x.shape()[1], roundings = 2 * n + n / 512 + 2;
  const Tensor<X, 2> seen = stored<X>(w);
  Index count = 0;
  for (Index t = 0; t < x.shape()[0]; ++t)
    for (Index o = 0; o < w.shape()[0]; ++o) {
      double sum = bias.size() > 0 ? bias(o) : 0, magnitude = std::abs(sum);
      for (Index i = 0; i < n; ++i) {
        const double term = number(x(t, i)) * number(seen(o, i));
        sum += term, magnitude += std::abs(term);
      }
      count += !(std::abs(y(t, o) - sum) <=
                 magnitude * verify::gamma(roundings, verify::unit_roundoff_fp32));
    }
  return count;
}

template <class X>
void check_shape(cpu::Tier tier, Index T, Index in, Index out) {
  const auto x = stored<X>(draw<2>({T, in}, 1));
  const auto w = draw<2>({out, in}, 2);
  const auto bias = draw<1>({out}, 3);
  const cpu::Matrix matrix({tier}, w, dtype_of<X>);
  INFO(name_of(tier) << ", " << name_of(dtype_of<X>) << ", T " << T << ", in " << in << ", out "
                     << out);
  const auto y = product<float>(tier, x, matrix, bias);
  CHECK(wrong(y, x, w, bias) == 0);
  CHECK(wrong(product<float>(tier, x, matrix), x, w) == 0);
  CHECK(same_bits(product<bf16>(tier, x, matrix, bias), stored<bf16>(y)));
}

}  // namespace

TEMPLATE_TEST_CASE("linear is right to rounding", "[cpu][cpu-linear]", float, bf16) {
  for (const cpu::Tier tier : cpu::usable_tiers()) {
    for (const Index in : {1, 2, 31, 33, 64, 600, 1100})
      for (const Index out : {1, 16, 17, 32, 33, 100}) check_shape<TestType>(tier, 5, in, out);
    for (const Index T : {1, 2, 3, 4, 6, 7, 11, 12, 13, 95, 96, 97, 200})
      check_shape<TestType>(tier, T, 70, 40);
  }
}

TEMPLATE_TEST_CASE("a row of linear is the same bits whatever the threads and the other rows",
                   "[cpu][cpu-linear]", float, bf16) {
  const Index T = 210, in = 1100, out = 150;
  const auto x = stored<TestType>(draw<2>({T, in}, 1));
  for (const cpu::Tier tier : cpu::usable_tiers()) {
    const cpu::Matrix w({tier}, draw<2>({out, in}, 2), dtype_of<TestType>);
    const auto once = [&] {
      const SharingThreads one(1);
      return product<float>(tier, x, w);
    }();
    INFO(name_of(tier));
    for (const int threads : {2, 3}) {
      const SharingThreads several(threads);
      CHECK(same_bits(product<float>(tier, x, w), once));
    }
    for (const Index n : {1, 2, 5, 13, 96, 130})
      for (const Index begin : {Index{0}, T - n}) {
        Tensor<TestType, 2> some({n, in});
        std::copy_n(x.data() + begin * in, n * in, some.data());
        Tensor<float, 2> expected({n, out});
        std::copy_n(once.data() + begin * out, n * out, expected.data());
        INFO(n << " rows from " << begin);
        CHECK(same_bits(product<float>(tier, some, w), expected));
      }
  }
}

TEST_CASE("linear reads and writes rows at a distance", "[cpu][cpu-linear]") {
  const auto wide = draw<2>({7, 50}, 1), w = draw<2>({33, 20}, 2);
  Tensor<float, 2> x({7, 20});
  for (Index t = 0; t < 7; ++t) std::copy_n(&wide(t, 9), 20, &x(t, 0));
  for (const cpu::Tier tier : cpu::usable_tiers()) {
    const cpu::Matrix matrix({tier}, w, Dtype::f32);
    const auto y = product<float>(tier, x, matrix);
    Tensor<float, 2> out({7, 40}, 7);
    ScratchMemory scratch(cpu::linear_scratch(20));
    cpu::linear<float, float>({tier}, {out.data() + 3, 7, 33, 40}, {wide.data() + 9, 7, 20, 50},
                              matrix, {}, scratch);
    INFO(name_of(tier));
    for (Index t = 0; t < 7; ++t)
      for (Index c = 0; c < 40; ++c) CHECK(out(t, c) == (3 <= c && c < 36 ? y(t, c - 3) : 7));
  }
}

TEST_CASE("tiles in software multiply as the tiers do", "[cpu][cpu-linear]") {
  for (const Index T : {1, 15, 16, 17, 33, 96})
    for (const Index in : {1, 31, 64, 1100}) {
      const Index out = 70;
      const auto x = stored<bf16>(draw<2>({T, in}, 1));
      const auto w = draw<2>({out, in}, 2);
      const cpu::Matrix matrix({}, w, Dtype::bf16);
      Tensor<float, 2> y({T, out});
      ScratchMemory memory(cpu::linear_scratch(in), 1);
      const cpu::Scratch scratch = memory;
      cpu::LinearPiece piece{};
      piece.bf16 = true;
      piece.x = x.data(), piece.x_stride = in, piece.rows = T;
      piece.w = reinterpret_cast<const std::uint32_t*>(matrix.packed());
      piece.in = in, piece.out = out, piece.last_panel = 3;
      piece.y = y.data();
      piece.y_stride = out;
      piece.scratch = scratch.data;
      cpu::tiles_in_software::linear_piece(piece);
      INFO("T " << T << ", in " << in);
      CHECK(wrong(y, x, w) == 0);
    }
}

TEST_CASE("a matrix is packed from rows of a parameter", "[cpu][cpu-linear]") {
  const Index in = 130;
  const auto numbers = draw<2>({200, in}, 2);
  const auto x = draw<2>({3, in}, 1);
  Parameter p;
  p.name = "w";
  p.shape = {200, in};
  p.data = reinterpret_cast<const std::byte*>(numbers.data());
  Tensor<float, 2> some({90, in});
  std::copy_n(numbers.data() + 50 * in, 90 * in, some.data());
  for (const cpu::Tier tier : cpu::usable_tiers())
    CHECK(same_bits(product<float>(tier, x, cpu::Matrix({tier}, p, 50, 140, Dtype::f32)),
                    product<float>(tier, x, cpu::Matrix({tier}, some, Dtype::f32))));

  Tensor<float, 2> broken = numbers;
  broken(60, 7) = std::nanf("");
  p.data = reinterpret_cast<const std::byte*>(broken.data());
  CHECK_THROWS_WITH(cpu::Matrix({}, p, 50, 140, Dtype::f32), Catch::Contains("row 60, column 7"));
}

TEST_CASE("a matrix is packed from two parameters, one below the other", "[cpu][cpu-linear]") {
  const Index in = 70;
  const auto numbers = draw<2>({90, in}, 2);
  const auto x = draw<2>({3, in}, 1);
  for (const Index cut : {0, 1, 32, 45, 90}) {  // panels are of 32 rows
    Parameter above, below;
    above.name = "above", below.name = "below";
    above.shape = {cut, in}, below.shape = {90 - cut, in};
    above.data = reinterpret_cast<const std::byte*>(numbers.data());
    below.data = reinterpret_cast<const std::byte*>(numbers.data() + cut * in);
    CHECK(same_bits(product<float>(cpu::Tier::portable, x,
                                   cpu::Matrix({cpu::Tier::portable}, above, below, Dtype::f32)),
                    product<float>(cpu::Tier::portable, x,
                                   cpu::Matrix({cpu::Tier::portable}, numbers, Dtype::f32))));
    below.shape = {90 - cut, in + 1};
    CHECK_THROWS_WITH(cpu::Matrix({}, above, below, Dtype::f32),
                      "tensors above and below have 70 and 71 columns, expected the same");
  }
}

TEST_CASE("linear refuses what does not fit", "[cpu][cpu-linear]") {
  const auto w = draw<2>({4, 3}, 2);
  const cpu::Matrix matrix({}, w, Dtype::f32);
  Tensor<float, 2> y({2, 4});
  ScratchMemory scratch(cpu::linear_scratch(5));
  const auto run = [&](auto x, const cpu::Matrix& m, View<const float, 1> bias) {
    using X = std::decay_t<decltype(*x.data())>;
    cpu::linear<float, X>({}, y.view(), x.view(), m, bias, scratch);
  };
  CHECK_THROWS_WITH(run(draw<2>({2, 5}, 1), matrix, {}), "x has shape (2, 5), expected (2, 3)");
  CHECK_THROWS_WITH(run(draw<2>({3, 3}, 1), matrix, {}), "y has shape (2, 4), expected (3, 4)");
  CHECK_THROWS_WITH(run(draw<2>({2, 3}, 1), matrix, draw<1>({3}, 1)),
                    "bias has shape (3), expected (4)");
  CHECK_THROWS_WITH(run(Tensor<bf16, 2>({2, 3}), matrix, {}),
                    "x is BF16 and the matrix is F32; expected the same");
  CHECK_THROWS_WITH(cpu::Matrix({}, w, Dtype::f16), "a packed matrix is F32 or BF16, not F16");
}
