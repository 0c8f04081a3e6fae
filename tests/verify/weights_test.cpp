// tests/verify/weights_test.cpp — ops that compute with other weights than the checkpoint's.
#include "verify/localise/weights.hpp"

#include <cmath>

#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/localise_helpers.hpp"
#include "verify/diagnose/diagnose.hpp"
#include "verify/measure/singular_values.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using reference::Precision;

namespace {

Tensor<double, 2> product(const Tensor<double, 2>& a, const Tensor<double, 2>& b) {
  Tensor<double, 2> c({a.shape()[0], b.shape()[1]});
  for (Index i = 0; i < a.shape()[0]; ++i)
    for (Index k = 0; k < a.shape()[1]; ++k)
      for (Index j = 0; j < b.shape()[1]; ++j) c(i, j) += a(i, k) * b(k, j);
  return c;
}

struct V32 {
  Precision precision = Precision::fp64;
  ModelPair models = open_models(sample("v32") / "checkpoint", precision);
  Sequence sequence =
      read_recording(sample("v32") / "logits.safetensors", "fp64", 0).sequences.front();

  /// A whole trace of the model with f(y, x, shape of the weights) added where op `name` runs.
  Recording trace(const std::string& name,
                  const std::function<void(View<double, 2>, View<const double, 2>)>& f) const {
    Variant altered = models.rounded({reference::Rounding::Mode::random, 5});
    altered.ops.linear = [=, inner = altered.ops.linear](const std::string& at, View<double, 2> y,
                                                         View<const double, 2> x, const Linear& w) {
      inner(at, y, x, w);
      if (at == name) f(y, x);
    };
    return dump_of(altered, sequence, everything);
  }

  JudgeOptions options() const {
    JudgeOptions options;
    options.runs = 4;
    return options;
  }
  std::vector<OtherWeights> others(const Recording& side) const {
    return other_weights(models, side, graft(models, side, options()).wrong);
  }
};

const std::string kv_b = "model.layers.1.self_attn.kv_b_proj";

/// y += x A B, with A (in, rank) and B (rank, out): an adapter of a tenth of the op's own size.
void add_adapter(View<double, 2> y, View<const double, 2> x, Index rank) {
  const Index in = x.shape[1], out = y.shape[1];
  Tensor<double, 2> a = normal<2>({in, rank}, 1), b = normal<2>({rank, out}, 2), rows(x.shape);
  std::copy(x.begin(), x.end(), rows.begin());
  const Tensor<double, 2> more = product(product(rows, a), b);
  for (Index i = 0; i < y.size(); ++i) y.data[i] += 0.1 / std::sqrt(double(in)) * more.data()[i];
}

}  // namespace

TEST_CASE("singular values, and orthonormal columns", "[judge]") {
  Tensor<double, 2> x({3, 2});
  x(0, 0) = 3, x(1, 1) = 4, x(2, 1) = 3;
  CHECK(singular_values(x) == std::vector<double>{5, 3});
  const Tensor<double, 2> low = product(normal<2>({20, 3}, 1), normal<2>({3, 30}, 2));
  const std::vector<double> values = singular_values(low);
  REQUIRE(values.size() == 20);
  CHECK(values[2] > 1);
  CHECK(values[3] < 20 * 0x1p-52 * values[0]);
  CHECK(orthonormal_columns(low).shape() == Shape<2>{3, 20});
  const Tensor<double, 2> q = orthonormal_columns(low);
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 3; ++j) {
      double inner = 0;
      for (Index c = 0; c < 20; ++c) inner += q(i, c) * q(j, c);
      CHECK(std::abs(inner - (i == j)) < 100 * 0x1p-53);
    }
}

TEST_CASE("an adapter is named by its projection and rank", "[judge][slow]") {
  for (const Precision precision : {Precision::fp64, Precision::hf_fp32}) {
    const V32 v32{precision};
    const Recording side =
        v32.trace(kv_b, [](View<double, 2> y, View<const double, 2> x) { add_adapter(y, x, 3); });
    const std::vector<OtherWeights> others = v32.others(side);
    REQUIRE(others.size() == 1);
    CHECK(others[0].name == kv_b);
    CHECK(others[0].rank == 3);
    if (precision == Precision::fp64) continue;
    const Diagnosis d = diagnose(v32.models, side, v32.options());
    CAPTURE(d.why);
    CHECK(d.conclusion == "defect");
    CHECK(d.defects == std::vector<int>{115});
    CHECK(d.suspects == std::vector<std::string>{kv_b});
    CHECK_THAT(d.why, Contains("rank 3") && Contains("every other op"));
    CHECK_THAT(table(d, false), Contains("adapter"));
    CHECK_THAT(to_html(d), Contains("Defect 115"));
  }
}

TEST_CASE("other faults of a projection are no other weights", "[judge]") {
  const V32 v32;
  const auto found = [&](const std::function<void(View<double, 2>, View<const double, 2>)>& f) {
    return v32.others(v32.trace(kv_b, f));
  };
  CHECK(found([](View<double, 2> y, auto) { y(40, 3) += 1; }).empty());  // rank 1 by itself
  CHECK(found([](View<double, 2> y, auto) {
          for (Index t = 0; t < y.shape[0]; ++t) y(t, 5) += 1;  // a bias
        }).empty());
  const auto scaled = found([](View<double, 2> y, auto) {
    for (double& value : y) value *= 1.5;
  });
  REQUIRE(scaled.size() == 1);  // weights times 1.5
  CHECK_FALSE(scaled[0].is_low());
  CHECK_THAT(in_words(scaled), Contains("the full one: other weights"));
}

TEST_CASE("logits of another checkpoint's projection are named, if it is told", "[judge][slow]") {
  const Scratch scratch;
  const std::filesystem::path base = sample("v32") / "checkpoint", merged = scratch / "merged";
  std::filesystem::copy(base, merged, std::filesystem::copy_options::recursive);
  TensorFile weights = TensorFile::read(base / "model.safetensors");
  const std::string changed = kv_b + ".weight";
  for (double& w : weights.at(changed).values) w *= 1.25;
  std::filesystem::remove(merged / "model.safetensors");
  weights.write(merged / "model.safetensors");
  JudgeOptions options = V32{}.options();
  options.dtype = "fp64";
  const std::filesystem::path of_base = sample("v32") / "logits.safetensors";
  options.weights_of = base.string();
  const Diagnosis d = diagnose(merged, of_base, options);
  CAPTURE(d.why);
  CHECK(d.defects == std::vector<int>{115});
  REQUIRE_FALSE(d.ranking.empty());
  CHECK_THAT(d.ranking.front().variant, Contains("self_attn.kv_b_proj of "));
}
