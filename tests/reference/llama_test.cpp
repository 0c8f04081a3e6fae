// llama.cpp with f16 caches: what is stored in f16, what is multiplied in f16, and how much it
// costs.
#include "reference/ops/hadamard.hpp"
#include "reference/precision/llama_f16.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace dsa;
using namespace dsa::test;
using reference::Precision;
using reference::Rounding;

namespace {

constexpr double fine = 1 + 0x1p-14;  // f16 has no number between 1 and 1 + 2^-10

reference::Ops<double> llama(Rounding rounding = {}) {
  return reference::ops_of(Precision::llama_f16, rounding, Config{});
}

double distance_of_run(const Model& stored, Precision precision, std::uint64_t seed) {
  const Model model = resident(reference::loaded_as(stored, precision), Index{1} << 30);
  const auto ops = reference::ops_of(precision, {Rounding::Mode::random, seed}, model.config);
  const Sequence sequence = plain_sequence(some_tokens(model, 15));  // no longer than top-k
  reference::Cache<double> cache;
  const auto got = reference::forward<double>({model, ops}, sequence, cache);
  return distance(got, logits_of(stored, sequence));
}

}  // namespace

TEST_CASE("llama-f16: latent and rotated key are stored in f16", "[reference]") {
  for (const char* name : {"kv_a_layernorm", "k_rope"}) {
    auto x = matrix({{fine, 3, 70000}});
    llama().cache(std::string("model.layers.0.self_attn.") + name, x);
    INFO(name);
    CHECK(x(0, 0) == 1);
    CHECK(x(0, 1) == 3);
    CHECK(std::isinf(x(0, 2)));  // beyond f16's 65504
  }
}

TEST_CASE("llama-f16: the index key is rotated before it is stored, where its size has a matrix",
          "[reference]") {
  const std::string name = "model.layers.0.self_attn.indexer.k";
  auto x = matrix({{fine, 0, 0, 0}});  // rotated: four times fine/2, each rounded to 1/2
  llama().cache(name, x);
  CHECK(x(0, 0) == 1);
  x = matrix({{1, 0x1p-14, 0, 0}});  // rotated (1 +- 2^-14)/2: to 1/2, or down to a finer number
  llama().cache(name, x);
  CHECK(x(0, 1) == 0);
  auto three = matrix({{1, 0x1p-14, 0}});
  llama().cache(name, three);
  CHECK(three(0, 1) == 0x1p-14);
}

TEST_CASE("llama-f16: a query is multiplied in f16, sums are float32", "[reference]") {
  Tensor<double, 3> out({1, 1, 1}), q({1, 1, 1}), none({1, 1, 1}), kv({2, 1, 2});
  Tensor<double, 2> k({2, 1});
  Tensor<Index, 2> chosen({1, 2});
  chosen(0, 1) = 1;
  q(0, 0, 0) = fine * 1024;
  kv(0, 0, 0) = 1, kv(0, 0, 1) = 1;  // [key | value]
  llama().mla_expanded("n", out, q, none, kv, k, chosen, 1.0 / 1024);
  const double p = 1 / (1 + std::exp(-1.0));  // of fine it would be 1.2e-5 more
  CHECK(out(0, 0, 0) == round_to(Dtype::f16, p));

  Tensor<double, 2> scores({1, 1}), key({1, 1}, 1), weight({1, 1}, 1);
  Indexer indexer;
  indexer.dot_scale = indexer.weight_scale = 1;
  const std::vector<Index> documents(1, 0);
  llama().indexer_scores("n", scores, q, key, weight, indexer, {0, documents});
  CHECK(scores(0, 0) == 1024);
}

TEST_CASE("llama-f16: the rotary table is the definition's but for products in a row",
          "[reference]") {
  Rope rope;
  rope.theta = 10000;
  const std::vector<Index> positions = {0, 1, 1000};
  Tensor<double, 2> c({3, 8}), s({3, 8}), want_c({3, 8}), want_s({3, 8});
  reference::definition<double>().rope_table("n", want_c, want_s, positions, rope);
  for (const Rounding rounding : {Rounding{}, Rounding{Rounding::Mode::random, 1}}) {
    llama(rounding).rope_table("n", c, s, positions, rope);
    for (Index i = 0; i < 8; ++i) {
      CHECK(c(0, i) == 1);
      CHECK(s(0, i) == 0);
      // 2 i + 1 roundings of the angle, to nearest or to the other neighbour, and one of the result
      const double angle = 1000 * std::pow(10000, -static_cast<double>(i) / 8);
      const double bound = 0x1p-23 * (static_cast<double>(2 * i + 1) * angle + 1);
      CHECK(std::abs(c(2, i) - want_c(2, i)) <= bound);
      CHECK(std::abs(s(2, i) - want_s(2, i)) <= bound);
    }
  }
}

TEST_CASE("llama-f16: a run lies between float32 and bf16", "[reference]") {
  const Model stored = sample_model("v32");
  for (std::uint64_t seed = 1; seed < 4; ++seed) {
    const double f32 = distance_of_run(stored, Precision::hf_fp32, seed),
                 f16 = distance_of_run(stored, Precision::llama_f16, seed),
                 bf16 = distance_of_run(stored, Precision::hf_bf16, seed);
    CAPTURE(f32, f16, bf16);
    CHECK(f16 > 10 * f32);
    CHECK(bf16 > 2 * f16);
  }
}
