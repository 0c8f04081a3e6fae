// rmsnorm and layernorm: x in fp32, y in the dtype of the case.
//
// Under the root, C products and sums of squares, the division by C and eps: gamma(C + 3), half of
// which is left by the root. Then root, division and two products, with two more roundings for a
// reciprocal root that the hardware approximates and one step refines. layernorm: the mean is wrong
// by delta = gamma(C) mean|x|; the variance about a mean that is off by delta is too large by
// delta^2 and no more: a one-pass variance, E[x^2] - mean^2, is not within this bound.
#include "reference/ops/norms.hpp"

#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/measure/bounds.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double u = unit_roundoff_fp32;
constexpr double default_eps = 1e-6;
constexpr Index after_the_root = 6;

struct Plan {
  std::string dtype;
  Index T, C;
  Inputs inputs = Inputs::gaussian;
  std::string tag = {};
  double mean = 0, size = 1;  // x = mean + size * normal
};

Case start(std::string_view op, const Plan& plan) {
  Case c = start_case(op, plan.dtype, {{'T', plan.T}, {'C', plan.C}}, plan.inputs, plan.tag);
  c.scalars["eps"] = default_eps;
  return c;
}

Array inputs(Draw& draw, const Plan& plan) {
  std::vector<double> x = draw.numbers(Dtype::f32, {plan.T, plan.C}, plan.size).values();
  for (double& value : x) value += plan.mean;
  return Array(Dtype::f32, {plan.T, plan.C}, x);
}

void answer_rmsnorm(Case& c) {
  const auto x = widen<2>(c.in.at("x"));
  const auto g = widen<1>(c.in.at("g"));
  const Index C = g.size();
  c.out["y"] = Array(storage_of(c.dtype), c.in.at("x").shape());
  Tensor<double, 2> want(x.shape());
  reference::rmsnorm<double>(want, x, g, c.scalar("eps"));

  std::vector<double> allowed = list(magnitude(want));
  for (double& a : allowed)
    a = a * (gamma(C + 3, u) / 2 + gamma(after_the_root, u)) + smallest_normal_fp32;
  answer(c, "y", list(want), std::move(allowed), false);
}

Case pose_rmsnorm(const Plan& plan, std::uint64_t seed) {
  Case c = start("rmsnorm", plan);
  Draw draw(c, seed);
  c.in["x"] = inputs(draw, plan);
  c.in["g"] = draw.numbers(Dtype::f32, {plan.C});
  answer_rmsnorm(c);
  return finished(std::move(c));
}

void answer_layernorm(Case& c) {
  const auto x = widen<2>(c.in.at("x"));
  const auto g = widen<1>(c.in.at("g")), b = widen<1>(c.in.at("b"));
  const Index T = x.shape()[0], C = g.size();
  const double eps = c.scalar("eps");
  c.out["y"] = Array(storage_of(c.dtype), {T, C});
  Tensor<double, 2> want({T, C});
  reference::layernorm<double>(want, x, g, b, eps);

  std::vector<double> allowed;
  for (Index t = 0; t < T; ++t) {
    double mean = 0, size = 0, variance = 0;
    for (Index i = 0; i < C; ++i) {
      mean += x(t, i) / static_cast<double>(C);
      size += std::abs(x(t, i)) / static_cast<double>(C);
    }
    for (Index i = 0; i < C; ++i)
      variance += (x(t, i) - mean) * (x(t, i) - mean) / static_cast<double>(C);
    const double delta = gamma(C, u) * size, root = std::sqrt(variance + eps);
    const double relative =
        gamma(C + 4, u) / 2 + delta * delta / (2 * (variance + eps)) + gamma(after_the_root, u);
    for (Index i = 0; i < C; ++i) {
      const double d = std::abs(x(t, i) - mean);
      const double scaled = std::abs(g(i)) / root * ((d + delta) * relative + delta);
      allowed.push_back(scaled + u * (std::abs(want(t, i)) + scaled) + smallest_normal_fp32);
    }
  }
  answer(c, "y", list(want), std::move(allowed), false);
}

Case pose_layernorm(const Plan& plan, std::uint64_t seed) {
  Case c = start("layernorm", plan);
  Draw draw(c, seed);
  c.in["x"] = inputs(draw, plan);
  c.in["g"] = draw.numbers(Dtype::f32, {plan.C});
  c.in["b"] = draw.numbers(Dtype::f32, {plan.C});
  answer_layernorm(c);
  return finished(std::move(c));
}

Poses cases_of(Case (*pose)(const Plan&, std::uint64_t), std::uint64_t seed) {
  std::vector<Plan> plans;
  for (const std::string dtype : {"fp32", "bf16"}) {
    for (const auto& [T, C] : std::vector<std::pair<Index, Index>>{{0, 4},
                                                                   {1, 1},
                                                                   {3, 2},
                                                                   {5, 17},
                                                                   {7, 100},
                                                                   {4, 129},
                                                                   {33, 512},
                                                                   {2, 1536},
                                                                   {2, 8196},
                                                                   {32, 7168}})
      plans.push_back({dtype, T, C});
    const Inputs hard = Inputs::adversarial;
    for (const Index C : {127, 512}) {
      plans.push_back({dtype, 3, C, hard, "far-from-zero", 100});
      plans.push_back({dtype, 3, C, hard, "small", 0, 1e-6});  // eps is most of the root
      plans.push_back({dtype, 3, C, hard, "large", 0, 1e15});
      plans.push_back({dtype, 3, C, hard, "zeros", 0, 0});
    }
  }
  Poses poses;
  for (const Plan& plan : plans)
    poses.push_back({plan.dtype, 2 * twice(plan.T, plan.C), [=] { return pose(plan, seed); }});
  return poses;
}

}  // namespace

Op rmsnorm_op() {
  return {"rmsnorm",
          "y[t,c] = g[c] x[t,c] / sqrt( mean_c x[t,c]^2 + eps )",
          {"fp32", "bf16"},
          [](std::uint64_t seed) { return cases_of(pose_rmsnorm, seed); },
          judge_elementwise,
          answer_rmsnorm,
          {{"x", "TC", InputRule::Kind::fp32}, {"g", "C", InputRule::Kind::fp32}},
          {{"eps", default_eps}}};
}

Op layernorm_op() {
  return {"layernorm",
          "y[t,c] = g[c] (x[t,c] - mean) / sqrt( variance + eps ) + b[c]",
          {"fp32", "bf16"},
          [](std::uint64_t seed) { return cases_of(pose_layernorm, seed); },
          judge_elementwise,
          answer_layernorm,
          {{"x", "TC", InputRule::Kind::fp32},
           {"g", "C", InputRule::Kind::fp32},
           {"b", "C", InputRule::Kind::fp32}},
          {{"eps", default_eps}}};
}

}  // namespace dsa::verify::kernels
