// The router backwards, from the experts' weights and the balance loss to the logits. The choice of
// experts is a constant. The formulas with their roundings.
#include "reference/ops/losses.hpp"
#include "reference/ops/router.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/packed.hpp"
#include "verify/kernels/cases/rounded.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double u = unit_roundoff_fp32;

using Scoring = Router::Scoring;

/// Scores (T, E) of logits of this size, as they are stored.
Array draw_scores(Draw& draw, Index T, Index E, Scoring scoring, double size) {
  Tensor<double, 2> s({T, E});
  reference::router_scores<double>(s, widen<2>(draw.numbers(Dtype::f32, {T, E}, size)), scoring);
  return Array(Dtype::f32, {T, E}, list(s));
}

Array draw_experts(Draw& draw, Index T, Index k, Index E) {
  std::vector<double> experts;
  for (Index t = 0; t < T; ++t)
    for (const Index e : draw.subset(k, E)) experts.push_back(static_cast<double>(e));
  return Array(Dtype::i32, {T, k}, experts);
}

Tensor<Index, 2> subscripts(const Array& x) {
  const auto ids = x.as<std::int32_t, 2>();
  Tensor<Index, 2> y(ids.shape);
  std::copy(ids.begin(), ids.end(), y.begin());
  return y;
}

std::string name_of(Scoring scoring) { return scoring == Scoring::softmax ? "softmax" : "sigmoid"; }

Inputs kind(double size) { return size == 1 ? Inputs::gaussian : Inputs::adversarial; }

Case pose_scores(Index T, Index E, Scoring scoring, double size, std::uint64_t seed) {
  Case c = start_case("router_scores_backward", "fp32", {{'T', T}, {'E', E}}, kind(size),
                      name_of(scoring));
  Draw draw(c, seed);
  c.scalars["scoring"] = scoring == Scoring::softmax;
  c.in["s"] = draw_scores(draw, T, E, scoring, size);
  c.in["d_s"] = draw.numbers(Dtype::f32, {T, E});
  c.out["d_z"] = Array(Dtype::f32, {T, E});
  const auto s = widen<2>(c.in["s"]), d_s = widen<2>(c.in["d_s"]);
  Tensor<double, 2> want({T, E}), allowed({T, E});
  reference::router_scores_backward<double>(want, s, d_s, scoring);
  for (Index t = 0; t < T; ++t) {
    Sum along;
    for (Index e = 0; e < E; ++e) along.add(d_s(t, e), s(t, e));
    for (Index e = 0; e < E; ++e) {
      const Rounded a = s(t, e), d = d_s(t, e);
      allowed(t, e) =
          (scoring == Scoring::softmax ? a * (d - along.total()) : d * a * (1 - a)).error;
    }
  }
  answer(c, "d_z", list(want), list(allowed), false);
  return finished(std::move(c));
}

struct WeightsPlan {
  Index T, E, k;
  bool normalise;
  double scale, size = 1;
};

Case pose_weights(const WeightsPlan& plan, std::uint64_t seed) {
  const auto& [T, E, k, normalise, scale, size] = plan;
  Case c = start_case("router_weights_backward", "fp32", {{'T', T}, {'E', E}, {'K', k}}, kind(size),
                      normalise ? "normalised" : "");
  Draw draw(c, seed);
  c.scalars = {{"norm_topk_prob", normalise}, {"routed_scaling_factor", scale}};
  c.in["s"] = draw_scores(draw, T, E, Scoring::sigmoid, size);
  c.in["experts"] = draw_experts(draw, T, k, E);
  c.in["d_weights"] = draw.numbers(Dtype::f32, {T, k});
  c.out["d_s"] = Array(Dtype::f32, {T, E});
  const auto s = widen<2>(c.in["s"]), d_w = widen<2>(c.in["d_weights"]);
  const auto experts = subscripts(c.in["experts"]);
  Tensor<double, 2> want({T, E}), allowed({T, E});
  reference::router_weights_backward<double>(want, s, experts, d_w, normalise, scale);
  for (Index t = 0; t < T; ++t) {
    Sum sum(1e-20), along;
    for (Index i = 0; i < k; ++i) {
      sum.add(s(t, experts(t, i)));
      along.add(d_w(t, i), s(t, experts(t, i)));
    }
    for (Index i = 0; i < k; ++i) {
      const Rounded d = d_w(t, i), all = sum.total();
      allowed(t, experts(t, i)) =
          (normalise ? Rounded(scale) * (d - along.total() / all) / all : Rounded(scale) * d).error;
    }
  }
  answer(c, "d_s", list(want), list(allowed), false);
  return finished(std::move(c));
}

struct BalancePlan {
  Lengths documents;
  Index E, k;
  Scoring scoring;
};

/// f_e of the document of rows [begin, end). A count is exact.
std::vector<Rounded> loads(const Tensor<Index, 2>& experts, Index begin, Index end, Index E) {
  const Index k = experts.shape()[1];
  std::vector<double> counts(static_cast<std::size_t>(E));
  for (Index t = begin; t < end; ++t)
    for (Index i = 0; i < k; ++i) ++counts[static_cast<std::size_t>(experts(t, i))];
  std::vector<Rounded> f;
  for (const double n : counts)
    f.push_back(rounded(n * static_cast<double>(E) / static_cast<double>(k * (end - begin)),
                        static_cast<Index>(n) + 2));
  return f;
}

/// The errors of d_s of a document, and of its loss.
Rounded bound_document(Tensor<double, 2>& allowed, const Case& c, Index begin, Index end) {
  const auto s = widen<2>(c.in.at("s")), before = widen<2>(c.in.at("d_s"));
  const Index E = s.shape()[1];
  const std::vector<Rounded> f = loads(subscripts(c.in.at("experts")), begin, end, E);
  const Rounded rows = static_cast<double>(end - begin), factor = c.scalar("factor");
  Sum loss;
  for (Index t = begin; t < end; ++t) {
    Sum of_s, of_f;
    for (Index e = 0; e < E; ++e) of_s.add(s(t, e));
    const Rounded sum = of_s.total();
    for (Index e = 0; e < E; ++e) of_f.add(f[static_cast<std::size_t>(e)] * (s(t, e) / sum));
    const Rounded mean = of_f.total();
    loss.add(mean / rows);
    for (Index e = 0; e < E; ++e)
      allowed(t, e) =
          (factor / rows * (f[static_cast<std::size_t>(e)] - mean) / sum + before(t, e)).error;
  }
  return loss.total();
}

Case pose_balance(const BalancePlan& plan, std::uint64_t seed) {
  const auto& [documents, E, k, scoring] = plan;
  const Index T = rows_of(documents);
  Case c = start_case("balance_backward", "fp32", {{'T', T}, {'E', E}, {'K', k}}, Inputs::gaussian,
                      tag_of(documents) + "-" + name_of(scoring));
  Draw draw(c, seed);
  c.scalars["factor"] = 0.3;
  c.in["s"] = draw_scores(draw, T, E, scoring, 1);
  c.in["experts"] = draw_experts(draw, T, k, E);
  c.in["begin"] = begin_of(documents);
  c.in["d_s"] = draw.numbers(Dtype::f32, {T, E}, 0.01);
  c.out["d_s"] = Array(Dtype::f32, {T, E});
  c.out["loss"] = Array(Dtype::f32, {1});
  const auto s = widen<2>(c.in["s"]);
  const auto experts = subscripts(c.in["experts"]);
  const auto begin = c.in["begin"].as<std::int32_t, 1>();
  const std::vector<Index> of_row(begin.begin(), begin.end());
  const auto n = static_cast<double>(documents.size());  // the reference takes their mean
  auto want = widen<2>(c.in["d_s"]);
  reference::balance_loss_backward<double>(want, {s, experts, of_row}, n * c.scalar("factor"));
  const double loss = reference::balance_loss<double>({s, experts, of_row}, n);
  Tensor<double, 2> allowed({T, E});
  Sum of_loss;
  Index first = 0;
  for (const Index rows : documents) {
    of_loss.add(bound_document(allowed, c, first, first + rows));
    first += rows;
  }
  answer(c, "d_s", list(want), list(allowed), false);
  answer(c, "loss", {loss}, {of_loss.error() + u * std::abs(loss)}, false);
  return finished(std::move(c));
}

Poses scores_cases(std::uint64_t seed) {
  Poses poses;
  for (const Scoring scoring : {Scoring::sigmoid, Scoring::softmax}) {
    const auto add = [&](Index T, Index E, double size) {
      poses.push_back(
          {"fp32", 2 * twice(T, E), [=] { return pose_scores(T, E, scoring, size, seed); }});
    };
    for (const auto& [T, E] :
         std::vector<std::pair<Index, Index>>{{0, 8}, {1, 1}, {3, 5}, {7, 33}, {33, 64}, {9, 256}})
      add(T, E, 1);
    add(5, 34, 40);  // most scores are 0 or 1
  }
  return poses;
}

Poses weights_cases(std::uint64_t seed) {
  Poses poses;
  const std::vector<WeightsPlan> plans = {
      {0, 8, 2, true, 2.5},    {1, 1, 1, true, 2.5},      {3, 5, 2, false, 1},
      {7, 33, 33, true, 1.5},  {4, 9, 1, true, 2.5},      {33, 64, 6, false, 16},
      {40, 256, 8, true, 2.5}, {5, 20, 4, true, 2.5, 20}, {5, 20, 4, false, 2.5, 20},
      {13, 17, 3, true, 2.5},  {13, 17, 3, false, 2.5}};
  for (const WeightsPlan& plan : plans)
    poses.push_back({"fp32", twice(plan.T, plan.E), [=] { return pose_weights(plan, seed); }});
  return poses;
}

Poses balance_cases(std::uint64_t seed) {
  Poses poses;
  for (const Scoring scoring : {Scoring::sigmoid, Scoring::softmax})
    for (const BalancePlan& plan : std::vector<BalancePlan>{{{}, 4, 1, scoring},
                                                            {{1}, 1, 1, scoring},
                                                            {{5}, 3, 1, scoring},
                                                            {{5, 1, 1, 9}, 7, 2, scoring},
                                                            {{1, 1, 1}, 9, 9, scoring},
                                                            {{30, 1, 40}, 33, 4, scoring},
                                                            {{20, 3}, 256, 8, scoring}})
      poses.push_back({"fp32", 3 * twice(rows_of(plan.documents), plan.E),
                       [=] { return pose_balance(plan, seed); }});
  return poses;
}

}  // namespace

Op router_scores_backward_op() {
  return {"router_scores_backward",
          "d_z = d_s s (1 - s) of a sigmoid, s ( d_s - sum_e d_s s ) of a softmax",
          {"fp32"},
          scores_cases,
          judge_elementwise};
}

Op router_weights_backward_op() {
  return {"router_weights_backward",
          "d_s[experts_i] = scale ( d_w_i - sum_j d_w_j s_j / D ) / D, D = sum_j s_j; others 0",
          {"fp32"},
          weights_cases,
          judge_elementwise};
}

Op balance_backward_op() {
  return {"balance_backward",
          "a = s / sum_e s, by document of n rows: loss = sum_e f_e mean_t a, "
          "d_s[t,e] += factor / (n sum_e s) ( f_e - sum_e' a f_e' )",
          {"fp32"},
          balance_cases,
          judge_elementwise};
}

}  // namespace dsa::verify::kernels
