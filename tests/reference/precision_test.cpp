// The ops with somebody's roundings, one by one: formats, places, and the randomness of the dice.
#include "reference/precision/precision.hpp"

#include <functional>

#include "reference/precision/official_fp8.hpp"
#include "reference/precision/rounder.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace dsa;
using namespace dsa::test;
using reference::Ops;
using reference::Precision;
using reference::Rounded;
using reference::Rounding;
using reference::Visibility;

namespace {

constexpr Rounding nearest{Rounding::Mode::nearest, 0};
Rounding die(std::uint64_t seed) { return {Rounding::Mode::random, seed}; }

/// One op of the table on fixed random inputs.
struct Case {
  std::string name;
  std::function<Tensor<double, 2>(const Ops<double>&)> run;
};

Tensor<double, 2> flat(const Tensor<double, 3>& x) {
  Tensor<double, 2> y({x.shape()[0], x.shape()[1] * x.shape()[2]});
  std::copy(x.begin(), x.end(), y.begin());
  return y;
}

/// Numbers that the cases read; they live as long as the program.
struct Inputs {
  Index T = 3, C = 24, O = 5, H = 4, D = 8, S = 6, E = 6;
  Tensor<double, 2> x = normal<2>({T, C}, 1), w = normal<2>({O, C}, 2),
                    gates = normal<2>({T, O}, 3), k = normal<2>({S, D}, 5),
                    head_weights = normal<2>({T, H}, 6), z = normal<2>({T, E}, 7),
                    e = normal<2>({E, C}, 13);
  Tensor<double, 1> g = normal<1>({C}, 8), kg = normal<1>({D}, 9), kb = normal<1>({D}, 10),
                    bias = normal<1>({E}, 11);
  Tensor<double, 3> q = normal<3>({T, H, D}, 4), kv = normal<3>({S, H, D + O}, 12);
  std::vector<Index> positions = {2, 9, 40}, documents = std::vector<Index>(6, 0);
  Tensor<Index, 2> chosen = subscripts({{0, 1, 2}, {3, 0, -1}, {5, 4, 1}});
  Tensor<Index, 2> experts = subscripts({{0, 4}, {5, 2}, {1, 3}});
};
const Inputs in;

Case scores_case() {
  return {"indexer_scores", [](const Ops<double>& ops) {
            Indexer indexer;
            indexer.dot_scale = 0.3, indexer.weight_scale = 0.6;
            Tensor<double, 2> y({in.T, in.S});
            ops.indexer_scores("n", y, in.q, in.k, in.head_weights, indexer,
                               Visibility{in.S - in.T, in.documents});
            return y;
          }};
}

Case key_norm_case(Indexer::KeyNorm norm) {
  return {"index_key_norm " + std::to_string(static_cast<int>(norm)), [=](const Ops<double>& ops) {
            IndexerWeights w;
            w.k_norm = parameter(in.kg), w.k_norm_bias = parameter(in.kb);
            Indexer indexer;
            indexer.key_norm = norm;
            Tensor<double, 2> y(in.k.shape());
            ops.index_key_norm("n", y, in.k, w, indexer);
            return y;
          }};
}

Case table_case() {
  return {"rope_table", [](const Ops<double>& ops) {
            Rope rope;
            rope.yarn = true, rope.factor = 4, rope.original_max_position_embeddings = 40;
            Tensor<double, 2> both({2 * in.T, in.D / 2});
            const View<double, 2> cos{both.data(), {in.T, in.D / 2}},
                sin{both.data() + cos.size(), cos.shape};
            ops.rope_table("n", cos, sin, in.positions, rope);
            return both;
          }};
}

Case rope_case(RopeLayout layout) {
  return {"rope", [=](const Ops<double>& ops) {
            Tensor<double, 2> c({in.T, in.D / 2}, 0.8), s({in.T, in.D / 2}, 0.6);
            Tensor<double, 3> x = in.q;
            ops.rope("n", x, c, s, layout);
            return flat(x);
          }};
}

Case attention_case() {
  return {"mla", [](const Ops<double>& ops) {
            Tensor<double, 3> y({in.T, in.H, in.O});
            ops.mla_expanded("n", y, in.q, in.q, in.kv, in.k, in.chosen, 0.25);
            return flat(y);
          }};
}

std::vector<Case> router_cases() {
  const auto weights = [](bool normalise) {
    return [=](const Ops<double>& ops) {
      Tensor<double, 2> s(in.z.shape()), y(in.experts.shape());
      reference::definition<double>().router_scores("n", s, in.z, Router::Scoring::sigmoid);
      ops.router_weights("n", y, s, in.experts, normalise, 2.5);
      return y;
    };
  };
  const auto scores = [](Router::Scoring scoring) {
    return [=](const Ops<double>& ops) {
      Tensor<double, 2> y(in.z.shape());
      ops.router_scores("n", y, in.z, scoring);
      return y;
    };
  };
  return {{"router_logits",
           [](const Ops<double>& ops) {
             Tensor<double, 2> y({in.T, in.E});
             ops.router_logits("n", y, in.x, {parameter(in.e), {}});
             return y;
           }},
          {"router sigmoid", scores(Router::Scoring::sigmoid)},
          {"router softmax", scores(Router::Scoring::softmax)},
          {"router_choice",
           [](const Ops<double>& ops) {
             Tensor<double, 2> y(in.z.shape());
             ops.router_choice("n", y, in.z, parameter(in.bias));
             return y;
           }},
          {"router_group_scores",
           [](const Ops<double>& ops) {
             Tensor<double, 2> y({in.T, 3});
             ops.router_group_scores("n", y, in.z, Router::Groups::sum_of_two);
             return y;
           }},
          {"router_weights", weights(false)},
          {"router_weights, normalised", weights(true)}};
}

std::vector<Case> row_cases() {
  const auto linear = [](auto member) {
    return [=](const Ops<double>& ops) {
      Tensor<double, 2> y({in.T, in.O});
      (ops.*member)("n", y, in.x, {parameter(in.w), {}});
      return y;
    };
  };
  return {{"linear", linear(&Ops<double>::linear)},
          {"index_head_weights", linear(&Ops<double>::index_head_weights)},
          {"rmsnorm",
           [](const Ops<double>& ops) {
             Tensor<double, 2> y(in.x.shape());
             ops.rmsnorm("n", y, in.x, parameter(in.g), 1e-3);
             return y;
           }},
          {"swiglu",
           [](const Ops<double>& ops) {
             Tensor<double, 2> y(in.gates.shape());
             ops.swiglu("n", y, in.gates, normal<2>(in.gates.shape(), 20));
             return y;
           }},
          {"accumulate",
           [](const Ops<double>& ops) {
             Tensor<double, 2> y = in.x;  // what came before is of the format
             for (double& value : y) value = round_to(Dtype::bf16, value);
             const std::vector<Index> places = {2, 0};
             const std::vector<double> weights = {0.3, 0.7};
             ops.accumulate("n", y, normal<2>({2, in.C}, 21), places, weights);
             return y;
           }},
          {"add", [](const Ops<double>& ops) {
             Tensor<double, 2> y = in.x;
             ops.add("n", y, normal<2>(in.x.shape(), 22));
             return y;
           }}};
}

std::vector<Case> all_cases() {
  std::vector<Case> cases = row_cases();
  for (const Case& c : router_cases()) cases.push_back(c);
  for (const auto norm :
       {Indexer::KeyNorm::layer_norm, Indexer::KeyNorm::rms_norm, Indexer::KeyNorm::none})
    cases.push_back(key_norm_case(norm));
  for (const auto layout : {RopeLayout::half, RopeLayout::interleaved})
    cases.push_back(rope_case(layout));
  cases.push_back(scores_case());
  cases.push_back(table_case());
  cases.push_back(attention_case());
  return cases;
}

/// The largest number of x, infinities aside.
double largest(const Tensor<double, 2>& x) {
  double most = 0;
  for (const double value : x)
    if (std::isfinite(value)) most = std::max(most, std::abs(value));
  return most;
}

}  // namespace

TEST_CASE("every rounded op in float64, to nearest, is the definition", "[reference]") {
  const auto definition = reference::definition<double>();
  for (const bool complex : {false, true}) {
    const auto rounded = Rounded{{Dtype::f64, Dtype::f64}, nearest, complex}.ops();
    for (const Case& c : all_cases()) {
      INFO(c.name);
      const auto want = c.run(definition);
      CHECK(largest(want) > 0.1);
      CHECK(distance(c.run(rounded), want) <= 1e-13 * largest(want));
    }
  }
}

TEST_CASE("rounded ops yield numbers of their format, near the definition", "[reference]") {
  const SharingThreads scope(1);
  const auto definition = reference::definition<double>();
  for (const Rounding rounding : {nearest, die(3)})
    for (const Dtype format : {Dtype::f32, Dtype::bf16}) {
      const auto rounded = Rounded{{format, format}, rounding}.ops();
      for (const Case& c : all_cases()) {
        INFO(c.name << " in " << name_of(format));
        const auto got = c.run(rounded), want = c.run(definition);
        if (c.name != "index_key_norm 2") {  // none: nothing to round
          CHECK(all_in(format, got));
          CHECK(distance(got, want) > 0);
        }
        // A position of 40 radians has 40 times the error of its frequency.
        CHECK(distance(got, want) <= 200 * unit_roundoff(format) * largest(want));
      }
    }
}

TEST_CASE("random roundings: reproducible, unbiased, of the size of the unit roundoff",
          "[reference]") {
  const SharingThreads scope(1);
  const auto definition = reference::definition<double>();
  const double u = unit_roundoff(Dtype::f32);
  constexpr int seeds = 400;
  const auto with = [](std::uint64_t seed) {
    return Rounded{{Dtype::f32, Dtype::f32}, die(seed)}.ops();
  };
  for (const Case& c : all_cases()) {
    if (c.name == "index_key_norm 2") continue;
    INFO(c.name);
    const auto exact = c.run(definition);
    CHECK(distance(c.run(with(1)), c.run(with(1))) == 0);
    CHECK(distance(c.run(with(1)), c.run(with(2))) > 0);
    double square = 0, terms = 0;
    std::vector<double> sum(static_cast<std::size_t>(exact.size())), sum2 = sum;
    for (std::uint64_t seed = 0; seed < seeds; ++seed) {
      const auto drawn = c.run(with(seed));
      for (Index i = 0; i < exact.size(); ++i) {
        if (!std::isfinite(exact.data()[i])) continue;
        const double d = drawn.data()[i] - exact.data()[i];
        sum[static_cast<std::size_t>(i)] += d, sum2[static_cast<std::size_t>(i)] += d * d;
      }
    }
    for (std::size_t i = 0; i < sum.size(); ++i) {
      if (sum2[i] == 0) continue;
      // Within 4.5 standard errors, at the least those of a number that is rarely rounded up.
      const double rare = 0.2 * u * std::abs(exact.data()[i]);
      CHECK(std::abs(sum[i]) / seeds <=
            4.5 * std::max(std::sqrt(sum2[i] / seeds), rare) / std::sqrt(seeds));
      square += sum2[i] / seeds, ++terms;
    }
    const double spread = std::sqrt(square / terms) / largest(exact);
    CHECK(spread > 0.02 * u);
    CHECK(spread < 30 * u);
  }
}

TEST_CASE("the spread of a stored sum is that of stochastic rounding", "[reference]") {
  // 1 + 0.3 ulp: up with probability 0.3, a standard deviation of ulp sqrt(0.3 * 0.7).
  const double ulp = 2 * unit_roundoff(Dtype::bf16);
  double sum = 0, sum2 = 0;
  constexpr int n = 20000;
  for (std::uint64_t seed = 0; seed < n; ++seed) {
    auto y = matrix({{1}});
    Rounded{{Dtype::bf16, Dtype::f32}, die(seed)}.add("n", y, matrix({{0.3 * ulp}}));
    CHECK_FALSE((y(0, 0) != 1 && y(0, 0) != 1 + ulp));
    const double d = (y(0, 0) - 1) / ulp;
    sum += d, sum2 += d * d;
  }
  const double mean = sum / n, variance = sum2 / n - mean * mean;
  CHECK(std::abs(mean - 0.3) < 5 * std::sqrt(0.21 / n));
  CHECK(std::sqrt(variance) == Approx(std::sqrt(0.21)).epsilon(0.03));
}

TEST_CASE("the error of an accumulator has the deviation it promises", "[reference]") {
  const Index n = 50;
  const double squares = 7, y = 3, u = unit_roundoff(Dtype::f32);
  const reference::Stream stream(die(5), "op", 0), still(nearest, "op", 0);
  double sum = 0, sum2 = 0;
  constexpr Index draws = 20000;
  for (Index i = 0; i < draws; ++i) {
    const double e = stream.accumulation(Dtype::f32, n, squares, y, i);
    sum += e, sum2 += e * e;
  }
  const double deviation = u * std::sqrt(50 * 7 / 6.0 + 50 * 9 / 9.0);
  CHECK(std::sqrt(sum2 / draws) == Approx(deviation).epsilon(0.03));
  CHECK(std::abs(sum / draws) < 5 * deviation / std::sqrt(draws));
  CHECK(still.accumulation(Dtype::f32, n, squares, y, 0) == 0);

  const reference::Stream other(die(5), "another op", 0), later(die(5), "op", 1);
  CHECK(stream.round(Dtype::f64, 1, 0) == stream.round(Dtype::f64, 1, 0));
  int same_name = 0, same_step = 0;
  for (Index i = 0; i < 100; ++i) {
    same_name += stream.round(Dtype::bf16, 1.0039, i) == other.round(Dtype::bf16, 1.0039, i);
    same_step += stream.round(Dtype::bf16, 1.0039, i) == later.round(Dtype::bf16, 1.0039, i);
  }
  CHECK((20 < same_name && same_name < 80));
  CHECK((20 < same_step && same_step < 80));
}
