// The ops of the definition worked by hand: norms, rotary embedding, Hadamard, dot and linear.
#include <numbers>

#include "core/config.hpp"
#include "reference/ops/dot.hpp"
#include "reference/ops/hadamard.hpp"
#include "reference/ops/linear.hpp"
#include "reference/ops/norms.hpp"
#include "reference/ops/rope.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace dsa;
using namespace dsa::test;
using reference::rope;

namespace {

double near(double a) { return 1e-14 * std::max(1.0, std::abs(a)); }

/// Frequencies of DeepSeek-V3.2: P = 64.
Rope v32_rope() {
  Rope r;
  r.yarn = true;
  r.theta = 1e4;
  r.factor = 40;
  r.original_max_position_embeddings = 4096;
  r.beta_fast = 32, r.beta_slow = 1;
  r.mscale = r.mscale_all_dim = 1;
  return r;
}

/// y = x W^T + b, the way it is defined.
Tensor<double, 2> plain_linear(const Tensor<double, 2>& x, const Tensor<double, 2>& w,
                               const Tensor<double, 1>& b) {
  Tensor<double, 2> y({x.shape()[0], w.shape()[0]});
  for (Index t = 0; t < y.shape()[0]; ++t)
    for (Index o = 0; o < y.shape()[1]; ++o) {
      y(t, o) = b.size() ? b(o) : 0;
      for (Index i = 0; i < x.shape()[1]; ++i) y(t, o) += x(t, i) * w(o, i);
    }
  return y;
}

}  // namespace

TEST_CASE("rmsnorm by hand: the mean square, eps inside the root", "[reference]") {
  const auto x = matrix({{3, 4}, {0, 0}});
  Tensor<double, 2> y({2, 2});
  reference::rmsnorm<double>(y, x, vector({2.0, -1.0}), 0.5);
  CHECK(y(0, 0) == Approx(2 * 3 / std::sqrt(13.0)).epsilon(1e-15));  // (9+16)/2 + 0.5 = 13
  CHECK(y(0, 1) == Approx(-4 / std::sqrt(13.0)).epsilon(1e-15));
  CHECK(y(1, 0) == 0);

  CHECK_THROWS_WITH(reference::rmsnorm<double>(y, x, vector({1.0, 1.0, 1.0}), 0),
                    "g has shape (3), expected (2)");
  Tensor<double, 2> narrow({2, 1});
  CHECK_THROWS_WITH(reference::rmsnorm<double>(narrow, x, vector({1.0, 1.0}), 0),
                    "y has shape (2, 1), expected (2, 2)");
}

TEST_CASE("layernorm by hand: biased variance, weight and bias", "[reference]") {
  const auto x = matrix({{1, 2, 3, 6}});
  Tensor<double, 2> y({1, 4});
  // mean 3, deviations -2 -1 0 3, variance 14/4 (not 14/3); with eps 0.5 the divisor is 2.
  reference::layernorm<double>(y, x, vector({1.0, 2.0, 5.0, -1.0}), vector({0.0, 10.0, 7.0, 0.0}),
                               0.5);
  CHECK(distance(y, matrix({{-1, 9, 7, -1.5}})) <= 1e-15);
  CHECK_THROWS_WITH(
      reference::layernorm<double>(y, x, vector({1.0, 2.0, 3.0, 4.0}), vector({1.0, 2.0}), 0),
      "b has shape (2), expected (4)");
}

TEST_CASE("rope turns pairs: side by side, or half a head apart", "[reference]") {
  // The first pair by 90 degrees, the second by 180.
  const auto cos = matrix({{0, -1}}), sin = matrix({{1, 0}});
  Tensor<double, 3> x({1, 2, 4});
  for (Index i = 0; i < 8; ++i) x.data()[i] = static_cast<double>(i + 1);
  Tensor<double, 3> y = x;
  rope<double>(x, cos, sin, RopeLayout::interleaved);
  const std::vector<double> interleaved = {-2, 1, -3, -4, -6, 5, -7, -8};
  CHECK(std::equal(x.begin(), x.end(), interleaved.begin()));
  rope<double>(y, cos, sin, RopeLayout::half);
  const std::vector<double> half = {-3, -2, 1, -4, -7, -6, 5, -8};
  CHECK(std::equal(y.begin(), y.end(), half.begin()));

  CHECK_THROWS_WITH(rope<double>(x, matrix({{0, 0, 0}}), sin, RopeLayout::half),
                    "cos has shape (1, 3), expected (1, 2)");
  CHECK_THROWS_WITH(rope<double>(x, cos, matrix({{0}}), RopeLayout::half),
                    "sin has shape (1, 1), expected (1, 2)");
}

TEST_CASE("rope preserves norms, and q.k depends on the distance only", "[reference]") {
  const auto layout = GENERATE(RopeLayout::interleaved, RopeLayout::half);
  const Index P = 10;
  const auto raw = normal<3>({1, 2, P}, 7);  // head 0 is q, head 1 is k
  const auto turned = [&](Index position) {
    Tensor<double, 2> cos({1, P / 2}), sin({1, P / 2});
    const std::vector<Index> positions = {position};
    reference::rope_table<double>(cos, sin, positions, Rope{});
    Tensor<double, 3> x = raw;
    rope<double>(x, cos, sin, layout);
    return x;
  };
  const auto inner = [&](const Tensor<double, 3>& a, Index i, const Tensor<double, 3>& b, Index j) {
    return reference::dot(a.data() + i * P, b.data() + j * P, P);
  };
  const double here = inner(turned(5), 0, turned(2), 1);
  CHECK(std::abs(inner(turned(905), 0, turned(902), 1) - here) < 1e-12);
  CHECK(std::abs(inner(turned(6), 0, turned(2), 1) - here) > 1e-3);
  CHECK(std::abs(inner(turned(77), 0, turned(77), 0) - inner(raw, 0, raw, 0)) < 1e-13);
}

TEST_CASE("rope_table: cos and sin of position times frequency", "[reference]") {
  Rope r;
  r.theta = 100;
  Tensor<double, 2> cos({2, 2}), sin({2, 2});
  const std::vector<Index> positions = {3, 11};
  reference::rope_table<double>(cos, sin, positions, r);  // frequencies 1, 1/10
  CHECK(distance(cos, matrix({{std::cos(3.0), std::cos(0.3)}, {std::cos(11.0), std::cos(1.1)}})) <
        1e-15);
  CHECK(distance(sin, matrix({{std::sin(3.0), std::sin(0.3)}, {std::sin(11.0), std::sin(1.1)}})) <
        1e-15);

  r.yarn = true;
  r.factor = 1;
  r.original_max_position_embeddings = 100;
  r.attention_factor = 2.5;  // multiplies both
  reference::rope_table<double>(cos, sin, positions, r);
  CHECK(std::abs(cos(1, 1) - 2.5 * std::cos(1.1)) < 1e-15);
  CHECK(std::abs(sin(1, 1) - 2.5 * std::sin(1.1)) < 1e-15);
  CHECK_THROWS_WITH(reference::rope_table<double>(cos, sin, std::span(positions).first(1), r),
                    "cos has shape (2, 2), expected (1, 2)");
}

TEST_CASE("YaRN of DeepSeek-V3.2: low 10, high 23, a tail of f/40", "[reference]") {
  const auto f = reference::rope_frequencies<double>(v32_rope(), 64);
  REQUIRE(f.size() == 32);
  for (Index i = 0; i < 32; ++i) {
    const double plain = std::pow(1e4, -static_cast<double>(i) / 32);
    const double ramp = std::clamp((static_cast<double>(i) - 10) / 13, 0.0, 1.0);
    INFO("frequency " << i);
    CHECK(f[static_cast<std::size_t>(i)] ==
          Approx(plain / 40 * ramp + plain * (1 - ramp)).epsilon(1e-14));
  }
  CHECK(f[10] == Approx(std::pow(1e4, -10 / 32.0)).epsilon(1e-14));
  CHECK(f[11] < 0.95 * std::pow(1e4, -11 / 32.0));
  CHECK(f[22] > 1.05 * std::pow(1e4, -22 / 32.0) / 40);
  CHECK(f[23] == Approx(std::pow(1e4, -23 / 32.0) / 40).epsilon(1e-14));
}

TEST_CASE("YaRN: `truncate` off keeps the fractional bounds, and equal bounds do not divide by 0",
          "[reference]") {
  Rope r = v32_rope();
  r.truncate = false;
  const auto d = [](double b) {
    return 64 * std::log(4096 / (2 * std::numbers::pi * b)) / (2 * std::log(1e4));
  };
  const double ramp = (16 - d(32)) / (d(1) - d(32)), plain = 0.01;  // 1e4^(-16/32)
  const auto f = reference::rope_frequencies<double>(r, 64);
  CHECK(f[16] == Approx(plain / 40 * ramp + plain * (1 - ramp)).epsilon(1e-13));

  r.truncate = true;
  r.original_max_position_embeddings = 6;  // d(1) = -0.16: low and high are 0
  const auto g = reference::rope_frequencies<double>(r, 64);
  CHECK(g[0] == 1);
  CHECK(g[1] == Approx(std::pow(1e4, -1 / 32.0) / 40).epsilon(1e-14));
}

TEST_CASE("the attention factor: given, else a quotient of mscales, else m(s, 1)", "[reference]") {
  const double m = 0.1 * std::log(40.0) + 1;
  Rope r;
  CHECK(reference::rope_attention_factor(r) == 1);  // not YaRN
  r = v32_rope();
  CHECK(reference::rope_attention_factor(r) == 1);  // both mscales are 1
  r.mscale_all_dim = 0.5;
  CHECK(reference::rope_attention_factor(r) ==
        Approx(m / (0.05 * std::log(40.0) + 1)).epsilon(1e-15));
  r.mscale_all_dim = 0;  // only one given
  CHECK(reference::rope_attention_factor(r) == Approx(m).epsilon(1e-15));
  r.factor = 0.5;
  CHECK(reference::rope_attention_factor(r) == 1);
  r.attention_factor = 0.7;
  CHECK(reference::rope_attention_factor(r) == 0.7);
}

TEST_CASE("the softmax scale of DeepSeek-V3.2 is 0.1352338", "[reference]") {
  Config c;
  c.qk_nope_head_dim = 128, c.qk_rope_head_dim = 64;
  c.rope = v32_rope();
  CHECK(std::abs(c.attention_scale() - 0.1352338) < 5e-8);
  c.rope.mscale_all_dim = 0;
  CHECK(c.attention_scale() == Approx(1 / std::sqrt(192.0)).epsilon(1e-15));
  c.rope = Rope{};
  CHECK(c.attention_scale() == Approx(1 / std::sqrt(192.0)).epsilon(1e-15));
}

TEST_CASE("hadamard: Sylvester's matrix, orthogonal, its own inverse", "[reference]") {
  auto x = matrix({{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}});
  const auto identity = x;
  reference::hadamard<double>(x);
  CHECK(distance(x, matrix({{0.5, 0.5, 0.5, 0.5},
                            {0.5, -0.5, 0.5, -0.5},
                            {0.5, 0.5, -0.5, -0.5},
                            {0.5, -0.5, -0.5, 0.5}})) == 0);
  reference::hadamard<double>(x);
  CHECK(distance(x, identity) == 0);

  const auto before = normal<2>({2, 128}, 3);
  auto after = before;
  reference::hadamard<double>(after);
  const auto inner = [](const Tensor<double, 2>& a, Index i, Index j) {
    return reference::dot(a.data() + i * 128, a.data() + j * 128, 128);
  };
  CHECK(distance(after, before) > 0.1);
  CHECK(std::abs(inner(after, 0, 1) - inner(before, 0, 1)) < 1e-12);
  CHECK(std::abs(inner(after, 0, 0) - inner(before, 0, 0)) < 1e-12);

  Tensor<double, 2> twelve({1, 12});
  CHECK_THROWS_WITH(reference::hadamard<double>(twelve),
                    "the Hadamard rotation needs a head size that is a power of two, got 12");
}

TEST_CASE("dot: every length, tail included", "[reference]") {
  const auto a = normal<1>({41}, 1), b = normal<1>({41}, 2);
  double sum = 0;
  for (Index n = 0; n <= 41; ++n) {
    CHECK(std::abs(reference::dot(a.data(), b.data(), n) - sum) <= near(sum));
    if (n < 41) sum += a(n) * b(n);
  }
}

TEST_CASE("linear against a plain triple loop", "[reference]") {
  struct Size {
    Index T, out, in;
  };
  const auto [T, out, in] =
      GENERATE(Size{1, 1, 1}, Size{1, 300, 7}, Size{5, 3, 1}, Size{7, 401, 33}, Size{3, 257, 2500});
  const auto x = normal<2>({T, in}, 1), w = normal<2>({out, in}, 2);
  const auto b = normal<1>({out}, 3);
  Tensor<double, 2> y({T, out}, 99), product({T, out}, 99);
  const double bound = 1e-15 * static_cast<double>(in + 8) * 8;

  reference::linear<double>(y, x, {parameter(w), parameter(b)});
  CHECK(distance(y, plain_linear(x, w, b)) <= bound);
  reference::linear<double>(y, x, {parameter(w), {}});
  CHECK(distance(y, plain_linear(x, w, {})) <= bound);
  reference::multiply<double>(product, x, w);
  CHECK(distance(product, y) == 0);

  // Numbers that do not lie at an address for doubles, as in a file, are decoded first.
  std::vector<std::byte> bytes(static_cast<std::size_t>(w.size()) * 8 + 1);
  std::copy_n(reinterpret_cast<const std::byte*>(w.data()), w.size() * 8, bytes.begin() + 1);
  Parameter misaligned = parameter(w);
  misaligned.data = bytes.data() + 1;
  reference::linear<double>(product, x, {misaligned, {}});
  CHECK(distance(product, y) == 0);
}

TEST_CASE("linear of FP8 blocks with ragged edges", "[reference]") {
  const Index T = 3, out = 131, in = 140;  // 2 x 2 blocks of 128
  const auto x = normal<2>({T, in}, 1);
  auto w = normal<2>({out, in}, 2);
  std::vector<std::byte> bytes(static_cast<std::size_t>(w.size()));
  encode(Dtype::f8_e4m3, w.data(), w.size(), bytes.data());
  const std::vector<float> scales = {0.5f, 3.0f, 100.0f, 0.125f};
  for (Index o = 0; o < out; ++o)
    for (Index i = 0; i < in; ++i)
      w(o, i) = round_to(Dtype::f8_e4m3, w(o, i)) *
                static_cast<double>(scales[static_cast<std::size_t>(2 * (o / 128) + i / 128)]);
  Parameter p = parameter(w);
  p.dtype = Dtype::f8_e4m3;
  p.data = bytes.data();
  p.scale_inv = scales.data();
  Tensor<double, 2> y({T, out});
  reference::linear<double>(y, x, {p, {}});
  CHECK(distance(y, plain_linear(x, w, {})) <= 1e-10);
}

TEST_CASE("linear does not depend on the number of threads", "[reference]") {
  const auto x = normal<2>({6, 700}, 1), w = normal<2>({1111, 700}, 2);
  Tensor<double, 2> one({6, 1111});
  {
    const SharingThreads threads(1);
    reference::linear<double>(one, x, {parameter(w), {}});
  }
  for (const int n : {2, 5}) {
    const SharingThreads threads(n);
    Tensor<double, 2> many({6, 1111});
    reference::linear<double>(many, x, {parameter(w), {}});
    CHECK(distance(many, one) == 0);
  }
}

TEST_CASE("linear names what does not fit, and reports a bad weight", "[reference]") {
  const auto x = normal<2>({2, 3}, 1);
  auto w = normal<2>({5, 4}, 2);
  Tensor<double, 2> y({2, 5}), wrong({2, 4});
  CHECK_THROWS_WITH(reference::linear<double>(y, x, {parameter(w), {}}),
                    "w has 4 columns, expected 3");
  CHECK_THROWS_WITH(reference::linear<double>(wrong, x, {parameter(w), {}}),
                    "y has shape (2, 4), expected (2, 5)");
  CHECK_THROWS_WITH(reference::multiply<double>(y, x, w), "w has shape (5, 4), expected (5, 3)");

  const auto x4 = normal<2>({2, 4}, 1);
  w(3, 1) = infinity;
  std::vector<std::byte> bytes(static_cast<std::size_t>(w.size()) * 4);
  encode(Dtype::f32, w.data(), w.size(), bytes.data());
  Parameter p = parameter(w);
  p.dtype = Dtype::f32, p.data = bytes.data();
  CHECK_THROWS_WITH(reference::linear<double>(y, x4, {p, {}}),
                    "tensor w (F32) holds infinity at row 3, column 1; every weight must be a "
                    "finite number");
}
