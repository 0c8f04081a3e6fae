#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/indexer.hpp"
#include "verify/kernels/decision.hpp"

namespace dsa::verify::kernels {
namespace {

void set_answer(Case& c) {
  const IndexScores wanted = index_scores(c);
  set_selection(c, wanted.scores, wanted.allowed, topk_of(c));
}

Case pose(const IndexPlan& plan, std::uint64_t seed) {
  IndexProblem p = index_problem("indexer_topk", plan, seed);
  p.c.scalars["topk"] = static_cast<double>(plan.K);
  p.c.out["chosen"] = Array(Dtype::i32, {plan.T, plan.K});
  if (p.c.refusal.empty()) set_selection(p.c, p.scores, p.allowed, plan.K);
  return finished(std::move(p.c));
}

std::vector<OutputVerdict> judge(const Case& c, const Arrays& out) {
  return {judge_selection(c, out)};
}

Poses cases(std::uint64_t seed) {
  Poses poses;
  for (const IndexPlan& plan : index_plans())
    poses.push_back({plan.dtype, plan.flops(), [=] { return pose(plan, seed); }});
  return poses;
}

}  // namespace

Op indexer_topk_op() {
  return {
      "indexer_topk",
      "chosen[t,:] = the min(K, visible) keys of largest indexer_scores[t,:], ascending, then -1",
      {"fp32", "bf16", "fp8"},
      cases,
      judge,
      set_answer,
      index_inputs(),
      {{"relu", 1, true}, {"topk", must_be_given, true}}};
}

}  // namespace dsa::verify::kernels
