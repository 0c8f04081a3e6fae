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
  CHECK_THROWS_WITH(given_case(op_named("swiglu_backward"), "fp32", {}, {}),
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
