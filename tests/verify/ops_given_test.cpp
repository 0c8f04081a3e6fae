#include <algorithm>
#include <limits>

#include "core/random.hpp"
#include "tests/catch.hpp"
#include "verify/kernels/given.hpp"
#include "verify/measure/selection.hpp"

using namespace dsa;
using namespace dsa::verify;
using namespace dsa::verify::kernels;

namespace {

GivenArray numbers(std::vector<Index> shape, std::uint64_t seed) {
  Index n = 1;
  for (const Index extent : shape) n *= extent;
  GivenArray x{std::move(shape), {}};
  for (Index i = 0; i < n; ++i)
    x.values.push_back(round_to(Dtype::bf16, gaussian(seed, static_cast<std::uint64_t>(i))));
  return x;
}

std::map<std::string, GivenArray> norm_inputs() {
  return {{"x", numbers({3, 8}, 1)}, {"g", numbers({8}, 2)}};
}

Case norm(const std::map<std::string, GivenArray>& inputs) {
  return given_case(op_named("rmsnorm"), "fp32", inputs, {});
}

}  // namespace

TEST_CASE("inputs of the suite, given back, get the suite's answers", "[ops]") {
  for (const Op& op : all_ops()) {
    if (op.set_answer == nullptr) continue;
    Index tried = 0;
    for (const Pose& pose : op.cases(3)) {
      if (pose.flops > 1e5) continue;
      const Case c = pose();
      if (!c.refusal.empty() || c.inputs == Inputs::dyadic) continue;
      std::map<std::string, GivenArray> inputs;
      for (const auto& [name, array] : c.in) inputs[name] = {array.shape(), array.values()};
      const Case given = given_case(op, c.dtype, inputs, c.scalars);
      INFO(op.name << " " << c.name);
      CHECK(given.allowed == c.allowed);
      CHECK(given.out.size() == c.out.size());
      CHECK(given.want.size() == c.want.size());
      for (const auto& [name, want] : c.want) {
        const std::vector<double>& mine = given.want.at(name);
        CHECK(std::equal(mine.begin(), mine.end(), want.begin(), want.end(),
                         [](double a, double b) { return a == b || (a != a && b != b); }));
      }
      ++tried;
    }
    INFO(op.name);
    CHECK(tried > 0);
  }
}

TEST_CASE("what has no answer is one sentence", "[ops]") {
  CHECK_THROWS_WITH(given_case(op_named("cross_entropy_backward"), "fp32", {}, {}),
                    Catch::Matchers::Contains("answers the suite's own inputs only"));
  using Catch::Matchers::Contains;
  auto inputs = norm_inputs();
  CHECK_NOTHROW(norm(inputs));
  inputs["g"] = numbers({7}, 2);
  CHECK_THROWS_WITH(norm(inputs), Contains("g of rmsnorm has shape") && Contains("C = 8"));
  inputs["g"] = {{8}, std::vector<double>(8, 0.1)};
  CHECK_THROWS_WITH(norm(inputs), Contains("round the input first"));
  inputs.erase("g");
  CHECK_THROWS_WITH(norm(inputs), Contains("needs the input g"));
  inputs = norm_inputs();
  inputs["h"] = numbers({8}, 2);
  CHECK_THROWS_WITH(norm(inputs), Contains("no input called h"));
  inputs = norm_inputs();
  CHECK_THROWS_WITH(given_case(op_named("rmsnorm"), "fp8", inputs, {}), Contains("dtype fp8"));
  CHECK_THROWS_WITH(given_case(op_named("rmsnorm"), "fp32", inputs, {{"eps", 0.0 / 0.0}}),
                    Contains("needs the scalar eps"));
  inputs["x"].values[3] = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH(norm(inputs), Contains("no finite bound"));
}

TEST_CASE("kinds of wrong selections are told apart", "[ops]") {
  const std::vector<double> scores = {3, 2, 1, -std::numeric_limits<double>::infinity()};
  const std::vector<double> exact(4);
  const auto fault = [&](const std::vector<Index>& chosen) {
    return judge_topk(chosen, {scores.data(), {4}}, {exact.data(), {4}}, 2, Ties::free).fault;
  };
  CHECK(fault({1, 0}) == TopkFault::none);
  CHECK(fault({0, 0}) == TopkFault::duplicate);
  CHECK(fault({0, 3}) == TopkFault::invisible);
  CHECK(fault({0}) == TopkFault::count);
  CHECK(fault({0, 9}) == TopkFault::no_subscript);
  CHECK(fault({0, 2}) == TopkFault::preference);
}

TEST_CASE("gradients that are added to are 0 where none is given", "[ops]") {
  std::map<std::string, GivenArray> inputs = {
      {"x", numbers({3, 8}, 1)}, {"g", numbers({8}, 2)}, {"d_y", numbers({3, 8}, 3)}};
  const Op& op = op_named("rmsnorm_backward");
  const Case alone = given_case(op, "fp32", inputs, {});
  inputs["d_g"] = {{8}, std::vector<double>(8, 4.0)};
  const Case added = given_case(op, "fp32", inputs, {});
  CHECK(alone.want.at("d_x") == added.want.at("d_x"));
  for (std::size_t c = 0; c < 8; ++c) {
    const double sum = alone.want.at("d_g")[c] + 4;
    CHECK(added.want.at("d_g")[c] == Approx(sum).epsilon(1e-14));  // three sums more in double
  }
}

TEST_CASE("gradients of what does not belong together have no answer", "[ops]") {
  using Catch::Matchers::Contains;
  const auto linear = [](std::vector<double> begin) {
    const auto n = static_cast<Index>(begin.size());
    return given_case(op_named("linear_backward"), "fp32",
                      {{"x", numbers({5, 4}, 1)},
                       {"w", numbers({2, 3, 4}, 2)},
                       {"d_y", numbers({5, 3}, 3)},
                       {"begin", {{n}, std::move(begin)}}},
                      {});
  };
  CHECK_NOTHROW(linear({0, 2, 5}));
  for (const std::vector<double>& begin :
       {std::vector<double>{0, 5}, {0, 2, 4}, {1, 2, 5}, {0, 6, 5}})
    CHECK_THROWS_WITH(linear(begin), Contains("begin is no list of the first row"));
  CHECK_THROWS_WITH(given_case(op_named("swiglu_backward"), "fp32",
                               {{"gate_up", numbers({2, 5}, 1)}, {"d_h", numbers({2, 3}, 2)}}, {}),
                    Contains("gate_up has rows of 5, expected 6"));
  CHECK_THROWS_WITH(
      given_case(
          op_named("embed_backward"), "fp32",
          {{"d_table", numbers({4, 3}, 1)}, {"d_x", numbers({1, 3}, 2)}, {"tokens", {{1}, {4}}}},
          {}),
      Contains("tokens holds 4, expected rows of d_table, 0 to 3"));
}
