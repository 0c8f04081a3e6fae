// loss = log sum_v exp z_v - z_target and its gradient.
//
// p: exp's error, that of the sum of V of them, and three roundings. A logit's own roundings are
// those of its difference from the largest.
#include <algorithm>

#include "reference/ops/losses.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/mla.hpp"
#include "verify/kernels/cases/rounded.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double u = unit_roundoff_fp32;

struct Plan {
  Index T, V;
  Inputs inputs = Inputs::gaussian;
  std::string tag = {};
  double size = 1;
};

Case start(const Plan& plan, std::uint64_t seed) {
  const auto& [T, V, inputs, tag, size] = plan;
  Case c = start_case("cross_entropy_backward", "fp32", {{'T', T}, {'V', V}}, inputs, tag);
  Draw draw(c, seed);
  c.in["z"] = draw.numbers(Dtype::f32, {T, V}, size);
  std::vector<double> targets, factor;
  for (Index t = 0; t < T; ++t) {
    targets.push_back(static_cast<double>(t % 3 == 2 ? V - 1 : draw.below(V)));
    factor.push_back(t % 5 == 3 ? 0 : 0.3 + 0.01 * static_cast<double>(t));  // 0: not counted
  }
  c.in["targets"] = Array(Dtype::i32, {T}, targets);
  c.in["factor"] = Array(Dtype::f32, {T}, factor);
  c.out["loss"] = Array(Dtype::f32, {T});
  c.out["d_z"] = Array(Dtype::f32, {T, V});
  return c;
}

/// Loss and gradient of row t: their errors.
Rounded bound_row(View<double, 1> d_z, View<const double, 1> z, Index target, double factor) {
  const std::vector<double> row(z.begin(), z.end());
  const Weights w = weights_of(row, std::vector<double>(row.size()));
  const double of_sum = w.lse_error + gamma(z.shape[0] + 3, u);
  for (Index v = 0; v < z.shape[0]; ++v) {
    const auto i = static_cast<std::size_t>(v);
    const Rounded p(w.p[i], w.p[i] * (w.e[i] + of_sum) * (1 + w.e[i]) + 2 * smallest_normal_fp32);
    d_z(v) = (Rounded(factor) * p - (v == target ? factor : 0)).error;
  }
  return Rounded(w.lse, w.lse_error) - z(target);
}

Case pose(const Plan& plan, std::uint64_t seed) {
  Case c = start(plan, seed);
  const Index T = plan.T, V = plan.V;
  const auto z = widen<2>(c.in["z"]);
  const auto factor = widen<1>(c.in["factor"]);
  const auto ids = c.in["targets"].as<std::int32_t, 1>();
  const std::vector<Token> targets(ids.begin(), ids.end());
  Tensor<double, 2> d_z({T, V}), allowed({T, V});
  std::vector<double> loss, loss_allowed;
  reference::cross_entropy_backward<double>(d_z, z, targets, {factor.data(), targets.size()});
  for (Index t = 0; t < T; ++t) {
    std::vector<double> alone(targets.size());
    alone[static_cast<std::size_t>(t)] = 1;
    loss.push_back(reference::cross_entropy<double>(z, targets, alone));
    loss_allowed.push_back(bound_row(allowed.view()[t], z.view()[t], ids(t), factor(t)).error);
  }
  answer(c, "loss", std::move(loss), std::move(loss_allowed), false);
  answer(c, "d_z", list(d_z), list(allowed), false);
  return finished(std::move(c));
}

Case pose_stranger(std::int32_t target, std::uint64_t seed) {
  Case c = start({6, 50, Inputs::adversarial, "target" + std::to_string(target)}, seed);
  c.in["targets"].as<std::int32_t, 1>()(4) = target;
  c.refusal = {std::to_string(target)};
  return finished(std::move(c));
}

Poses cases(std::uint64_t seed) {
  const Inputs hard = Inputs::adversarial;
  const std::vector<Plan> plans = {{0, 4},
                                   {1, 1},
                                   {3, 2},
                                   {5, 15},
                                   {4, 17},
                                   {9, 100},
                                   {3, 1025},
                                   {2, 12345},
                                   {5, 33, hard, "equal", 0},
                                   {5, 33, hard, "tiny", 1e-3},
                                   {6, 70, hard, "saturated", 60},
                                   {4, 33, hard, "huge", 1000}};
  Poses poses;
  for (const Plan& plan : plans)
    poses.push_back({"fp32", 3 * twice(plan.T, plan.V), [=] { return pose(plan, seed); }});
  for (const std::int32_t target : {-1, 50})
    poses.push_back({"fp32", 1800, [=] { return pose_stranger(target, seed); }});
  return poses;
}

}  // namespace

Op cross_entropy_backward_op() {
  return {
      "cross_entropy_backward",
      "loss[t] = log sum_v exp z_v - z_target, d_z_v = factor[t] ( softmax(z)_v - [v = target] )",
      {"fp32"},
      cases,
      judge_elementwise};
}

}  // namespace dsa::verify::kernels
