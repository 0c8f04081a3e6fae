// The rows of a mixture's experts, and back. Rows are pairs of a token and one of its k experts,
// sorted by expert and, of one expert, by token.
//
// y: k products and sums on top of what was there. d_weights: C products and sums. A row times a
// weight: one rounding.
#include <algorithm>
#include <numeric>

#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/kernels/cases/rounded.hpp"

namespace dsa::verify::kernels {
namespace {

struct Plan {
  Index T, k, E, C;
  Inputs inputs;
  bool weighted = true;  // or every weight is 1: the gradient of gathering
};

/// The row of pair t k + i.
std::vector<Index> rows_of_pairs(const Case& c) {
  const auto experts = c.in.at("experts").as<std::int32_t, 2>();
  std::vector<Index> pairs(static_cast<std::size_t>(experts.size())), rows(pairs.size());
  std::iota(pairs.begin(), pairs.end(), 0);
  std::stable_sort(pairs.begin(), pairs.end(),
                   [&](Index a, Index b) { return experts.data[a] < experts.data[b]; });
  for (std::size_t row = 0; row < pairs.size(); ++row)
    rows[static_cast<std::size_t>(pairs[row])] = static_cast<Index>(row);
  return rows;
}

Case start(std::string_view op, const Plan& plan, const std::string& tag) {
  Case c = start_case(op, "fp32", {{'T', plan.T}, {'K', plan.k}, {'E', plan.E}, {'C', plan.C}},
                      plan.inputs, tag);
  c.scalars["experts"] = static_cast<double>(plan.E);
  return c;
}

Array draw_experts(Draw& draw, const Plan& plan) {
  std::vector<double> experts;
  for (Index t = 0; t < plan.T; ++t)
    for (const Index e : draw.subset(plan.k, plan.E)) experts.push_back(static_cast<double>(e));
  return Array(Dtype::i32, {plan.T, plan.k}, experts);
}

Case pose(const Plan& plan, std::uint64_t seed) {
  const Index T = plan.T, k = plan.k, C = plan.C;
  Case c = start("mixing", plan, plan.weighted ? "" : "sums");
  Draw draw(c, seed);
  c.in["experts"] = draw_experts(draw, plan);
  if (plan.weighted) c.in["weights"] = draw.numbers(Dtype::f32, {T, k});
  c.in["x"] = draw.numbers(Dtype::f32, {T * k, C});
  c.in["y"] = draw.numbers(Dtype::f32, {T, C});
  c.out["y"] = Array(Dtype::f32, {T, C});
  const auto x = widen<2>(c.in["x"]), y = widen<2>(c.in["y"]);
  const auto weights = plan.weighted ? widen<2>(c.in["weights"]) : Tensor<double, 2>({T, k}, 1.0);
  const std::vector<Index> rows = rows_of_pairs(c);
  std::vector<double> want, allowed;
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < C; ++i) {
      Sum sum(y(t, i));
      for (Index j = 0; j < k; ++j)
        sum.add(weights(t, j), x(rows[static_cast<std::size_t>(t * k + j)], i));
      want.push_back(sum.total().x);
      allowed.push_back(sum.error());
    }
  answer(c, "y", std::move(want), std::move(allowed), true);
  return finished(std::move(c));
}

Case pose_stranger(std::int32_t expert, std::uint64_t seed) {
  const Plan plan{7, 2, 5, 9, Inputs::adversarial};
  Case c = start("mixing", plan, "expert" + std::to_string(expert));
  Draw draw(c, seed);
  c.in["experts"] = draw_experts(draw, plan);
  c.in["experts"].as<std::int32_t, 2>()(4, 1) = expert;
  c.in["weights"] = draw.numbers(Dtype::f32, {plan.T, plan.k});
  c.in["x"] = draw.numbers(Dtype::f32, {plan.T * plan.k, plan.C});
  c.in["y"] = draw.numbers(Dtype::f32, {plan.T, plan.C});
  c.out["y"] = Array(Dtype::f32, {plan.T, plan.C});
  c.refusal = {std::to_string(expert)};
  return finished(std::move(c));
}

Case pose_backward(const Plan& plan, std::uint64_t seed) {
  const Index T = plan.T, k = plan.k, C = plan.C;
  Case c = start("mixing_backward", plan, "");
  Draw draw(c, seed);
  c.in["experts"] = draw_experts(draw, plan);
  c.in["weights"] = draw.numbers(Dtype::f32, {T, k});
  for (const char* name : {"h", "d_h"}) {
    c.in[name] = draw.numbers(Dtype::f32, {T * k, C});
    c.out[name] = Array(Dtype::f32, {T * k, C});
  }
  c.out["d_weights"] = Array(Dtype::f32, {T, k});
  const auto weights = widen<2>(c.in["weights"]);
  const std::vector<Index> rows = rows_of_pairs(c);
  std::vector<double> want, allowed;
  const auto h = widen<2>(c.in["h"]), d_h = widen<2>(c.in["d_h"]);
  Tensor<double, 2> scaled[2] = {h, d_h}, scaled_allowed[2] = {h, d_h};
  for (Index pair = 0; pair < T * k; ++pair) {
    const Index row = rows[static_cast<std::size_t>(pair)];
    Sum dot;
    for (Index i = 0; i < C; ++i) {
      dot.add(h(row, i), d_h(row, i));
      for (int which = 0; which < 2; ++which) {
        const Rounded product = Rounded(weights.data()[pair]) * (which ? d_h : h)(row, i);
        scaled[which](row, i) = product.x;
        scaled_allowed[which](row, i) = product.error;
      }
    }
    want.push_back(dot.total().x);
    allowed.push_back(dot.error());
  }
  answer(c, "d_weights", std::move(want), std::move(allowed), true);
  answer(c, "h", list(scaled[0]), list(scaled_allowed[0]), true);
  answer(c, "d_h", list(scaled[1]), list(scaled_allowed[1]), true);
  return finished(std::move(c));
}

Poses cases(bool back, std::uint64_t seed) {
  Poses poses;
  for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian}) {
    bool weighted = true;
    for (const auto& [T, k, E, C] : std::vector<std::array<Index, 4>>{{0, 2, 4, 3},
                                                                      {1, 1, 1, 1},
                                                                      {5, 2, 3, 7},
                                                                      {9, 4, 4, 16},
                                                                      {40, 3, 33, 31},
                                                                      {65, 1, 2, 100}}) {
      const Plan plan{T, k, E, C, inputs, weighted || back};
      poses.push_back({"fp32", 2 * twice(T, k, C),
                       [=] { return back ? pose_backward(plan, seed) : pose(plan, seed); }});
      weighted = !weighted;
    }
  }
  if (!back)
    for (const std::int32_t expert : {-1, 5})
      poses.push_back({"fp32", 300, [=] { return pose_stranger(expert, seed); }});
  return poses;
}

}  // namespace

Op mixing_op() {
  return {"mixing",
          "y[t,:] += sum_i weights[t,i] x[row of (t,i),:]",
          {"fp32"},
          [](std::uint64_t seed) { return cases(false, seed); },
          judge_elementwise};
}

Op mixing_backward_op() {
  return {"mixing_backward",
          "d_weights[t,i] = h[row,:] . d_h[row,:]; h[row,:] and d_h[row,:] times weights[t,i]",
          {"fp32"},
          [](std::uint64_t seed) { return cases(true, seed); },
          judge_elementwise};
}

}  // namespace dsa::verify::kernels
