// DeepSeek's own serving code: e4m3 blocks, the indexer's rotation, the latent's round trip.
#include "reference/precision/official_fp8.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace dsa;
using namespace dsa::test;
using reference::quantise_e4m3;
using reference::Rounding;

namespace {

reference::Ops<double> official(bool ue8m0 = true) {
  Config config;
  config.fp8_scale_ue8m0 = ue8m0;
  return reference::ops_of(reference::Precision::official_fp8, Rounding{}, config);
}

}  // namespace

TEST_CASE("quantise_e4m3 by hand: amax/448, at least 1e-4/448", "[reference]") {
  auto x = matrix({{448, 1, -33, 0}, {0, 0, 0, 0}, {2e-5, 0, 0, 0}});
  Tensor<double, 2> scales({3, 1});
  quantise_e4m3(x, scales, 4, false);
  CHECK(scales(0, 0) == Approx(1).epsilon(1e-7));
  CHECK(x(0, 0) == 448);
  CHECK(x(0, 1) == 1);
  CHECK(x(0, 2) == -32);  // e4m3 steps by 4 above 32
  CHECK(scales(1, 0) == Approx(1e-4 / 448).epsilon(1e-6));
  CHECK(x(1, 0) == 0);
  CHECK(scales(2, 0) == Approx(1e-4 / 448).epsilon(1e-6));  // the floor, not 2e-5/448
  CHECK(x(2, 0) == 88);                                     // 0.2 * 448 = 89.6, steps of 8
}

TEST_CASE("quantise_e4m3: power-of-two scales are rounded up", "[reference]") {
  auto x = matrix({{3 * 448, 336 * 4, 1, 0}, {447, 5, 0, 0}});
  Tensor<double, 2> scales({2, 1});
  quantise_e4m3(x, scales, 4, true);
  CHECK(scales(0, 0) == 4);
  CHECK(x(0, 0) == 320);   // 336 lies halfway between 320 and 352: to the even one
  CHECK(x(0, 2) == 0.25);  // 1/4
  CHECK(scales(1, 0) == 1);
  CHECK(x(1, 0) == 448);
  CHECK(x(1, 1) == 5);
}

TEST_CASE("quantise_e4m3: a scale a block, the last one ragged", "[reference]") {
  auto x = matrix({{4.48, 2.24, 448, 0, 44800}});
  Tensor<double, 2> scales({1, 3});
  quantise_e4m3(x, scales, 2, false);
  CHECK(scales(0, 0) == Approx(0.01).epsilon(1e-6));
  CHECK(scales(0, 1) == Approx(1).epsilon(1e-6));
  CHECK(scales(0, 2) == Approx(100).epsilon(1e-6));
  CHECK(distance(x, matrix({{448, 224, 448, 0, 448}})) == 0);
  Tensor<double, 2> two({1, 2});
  CHECK_THROWS_WITH(quantise_e4m3(x, two, 2, false), "scales has shape (1, 2), expected (1, 3)");
}

TEST_CASE("official fp8: the cached latent is rounded, the rotary key and index key are not",
          "[reference]") {
  const auto ops = official();
  const auto x = matrix({{448, 33, 0.3}});
  auto y = x;
  ops.cache("model.layers.0.self_attn.k_rope", y);
  CHECK(distance(y, x) == 0);
  ops.cache("model.layers.0.self_attn.indexer.k", y);
  CHECK(distance(y, x) == 0);
  ops.cache("model.layers.0.self_attn.kv_a_layernorm", y);
  CHECK(distance(y, matrix({{448, 32, 0.3125}})) == 0);
}

TEST_CASE("official fp8: a linear rounds its input only where its weight is FP8", "[reference]") {
  const auto ops = official();
  const auto x = matrix({{448, 33}}), w = matrix({{0, 1}});
  Tensor<double, 2> y({1, 1});
  ops.linear("a", y, x, {parameter(w), {}});
  CHECK(y(0, 0) == 33);
  std::vector<std::byte> bytes(2);
  encode(Dtype::f8_e4m3, w.data(), 2, bytes.data());
  const float scale = 1;
  Parameter p = parameter(w);
  p.dtype = Dtype::f8_e4m3, p.data = bytes.data(), p.scale_inv = &scale;
  ops.linear("a", y, x, {p, {}});
  CHECK(y(0, 0) == 32);

  const auto fine = matrix({{0, 1 + 0x1p-12}});  // the head stores fp32, the others bf16
  ops.linear("lm_head", y, matrix({{0, 1}}), {parameter(fine), {}});
  CHECK(y(0, 0) == 1 + 0x1p-12);
  ops.linear("model.layers.3.shared_head.head", y, matrix({{0, 1}}), {parameter(fine), {}});
  CHECK(y(0, 0) == 1 + 0x1p-12);
  ops.linear("a", y, matrix({{0, 1}}), {parameter(fine), {}});
  CHECK(y(0, 0) == 1);
}

TEST_CASE("official fp8: RMSNorm multiplies its gain before the store", "[reference]") {
  // 1/rms is 1.003, which rounds to 1; times 1.5 it rounds to 1.5078125 or, rounded before, 1.5.
  const auto gain = vector({1.5});
  const auto x = matrix({{1}});
  const double eps = 1 / (1.003 * 1.003) - 1;
  Tensor<double, 2> y({1, 1});
  official().rmsnorm("n", y, x, parameter(gain), eps);
  CHECK(y(0, 0) == 1.5078125);
  reference::ops_of(reference::Precision::hf_bf16, Rounding{}, Config{})
      .rmsnorm("n", y, x, parameter(gain), eps);
  CHECK(y(0, 0) == 1.5);
}

TEST_CASE("official fp8: index scores follow the definition within e4m3's precision",
          "[reference]") {
  const Index T = 6, H = 4, D = 32, S = 9;
  auto q = normal<3>({T, H, D}, 1);
  const auto k = normal<2>({S, D}, 2), w = normal<2>({T, H}, 3);
  Indexer indexer;
  indexer.dot_scale = 1 / std::sqrt(32.0), indexer.weight_scale = 0.5;
  const std::vector<Index> documents(9, 0);
  Tensor<double, 2> want({T, S}), got({T, S});
  const reference::Visibility visible{S - T, documents};
  reference::definition<double>().indexer_scores("n", want, q, k, w, indexer, visible);
  for (const bool ue8m0 : {false, true}) {
    official(ue8m0).indexer_scores("n", got, q, k, w, indexer, visible);
    // Two inputs of D terms with relative errors of at most 2^-4 each, at random.
    CHECK(distance(got, want) < 0.3);
    CHECK(distance(got, want) > 1e-4);
    CHECK(got(0, S - 1) == -infinity);
  }
  Tensor<double, 3> twelve({T, H, 12});
  CHECK_THROWS_WITH(
      official().indexer_scores("n", got, twelve, Tensor<double, 2>({S, 12}), w, indexer, visible),
      "the Hadamard rotation needs a head size that is a power of two, got 12");
}
