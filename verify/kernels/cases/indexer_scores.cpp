#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/indexer.hpp"

namespace dsa::verify::kernels {
namespace {

void set_answer(Case& c) {
  const IndexScores wanted = index_scores(c);
  c.out["scores"] = Array(Dtype::f32, {c.sizes.at('T'), c.sizes.at('S')});
  answer(c, "scores", list(wanted.scores), list(wanted.allowed), true);
}

Case pose(const IndexPlan& plan, std::uint64_t seed) {
  IndexProblem p = index_problem("indexer_scores", plan, seed);
  p.c.out["scores"] = Array(Dtype::f32, {plan.T, plan.S});
  answer(p.c, "scores", list(p.scores), list(p.allowed), true);
  return finished(std::move(p.c));
}

/// The scores alone are not ordered: a NaN among them refuses nothing.
Poses cases(std::uint64_t seed) {
  Poses poses;
  for (const IndexPlan& plan : index_plans())
    if (!plan.tag.starts_with("nan"))
      poses.push_back({plan.dtype, plan.flops(), [=] { return pose(plan, seed); }});
  return poses;
}

}  // namespace

Op indexer_scores_op() {
  return {"indexer_scores",
          "scores[t,s] = sum_h w[t,h] relu( q[t,h,:] . k[s,:] ), begin[t] <= s < end[t]; else -inf",
          {"fp32", "bf16", "fp8"},
          cases,
          judge_elementwise,
          set_answer,
          index_inputs(),
          {{"relu", 1, true}}};
}

}  // namespace dsa::verify::kernels
