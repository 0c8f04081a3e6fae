// From the gradient of the chosen keys' scores to that of the indexer's queries, keys and weights.
#include <limits>

#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/indexer_training.hpp"

namespace dsa::verify::kernels {
namespace {

using Plan = TrainedIndexPlan;

std::string name_of(const Plan& plan) {
  return tag_of(plan.documents) + (plan.tag.empty() ? "" : "-" + plan.tag);
}

Case pose(const Plan& plan, std::uint64_t seed) {
  const Index T = rows_of(plan.documents);
  Case c = start_case("indexer_scores_backward", "fp32",
                      {{'T', T}, {'H', plan.H}, {'D', plan.D}, {'K', plan.K}}, plan.inputs,
                      name_of(plan));
  Draw draw(c, seed);
  const TrainedIndex index(c, draw, plan);
  c.in["d_scores"] = draw.numbers(Dtype::f32, {T, plan.K});
  const auto d_chosen = widen<2>(c.in["d_scores"]);
  const auto chosen = c.in["chosen"].as<std::int32_t, 2>();
  Tensor<double, 2> d_scores({T, T});
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < plan.K; ++i)
      if (chosen(t, i) >= 0)
        d_scores(t, chosen(t, i)) = d_chosen(t, i);
      else  // of no key: nobody may read it
        c.in["d_scores"].as<float, 2>()(t, i) = std::numeric_limits<float>::quiet_NaN();
  index.set_gradient(c, d_scores, Tensor<double, 2>({T, T}));
  return finished(std::move(c));
}

Case pose_stranger(const std::string& tag, std::int32_t key, std::uint64_t seed) {
  Plan plan{{9, 7}, 2, 5, 4};
  plan.inputs = Inputs::adversarial, plan.tag = tag;
  Case c = pose(plan, seed);
  choose_wrongly(c, 12, key > 12 ? 3 : 0, key);
  return c;
}

std::vector<Plan> plans() {
  std::vector<Plan> plans = {{{7, 6}, 3, 9, 4, Inputs::gaussian, "uniform", true, true},
                             {{7, 6}, 3, 9, 4, Inputs::gaussian, "no-relu", false},
                             {{5, 14}, 2, 7, 4, Inputs::adversarial, "holes", true, false, true},
                             {{90}, 64, 128, 33}};
  for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian})
    for (const auto& [documents, H, D, K] :
         std::vector<std::tuple<Lengths, Index, Index, Index>>{{{}, 2, 4, 3},
                                                               {{1}, 1, 1, 1},
                                                               {{5, 1, 1, 9}, 3, 5, 1},
                                                               {{8}, 4, 32, 7},
                                                               {{8}, 4, 16, 9},
                                                               {{24, 26}, 5, 17, 6},
                                                               {{60, 1, 49}, 2, 8, 12}})
      plans.push_back({documents, H, D, K, inputs});
  return plans;
}

Poses cases(std::uint64_t seed) {
  Poses poses;
  for (const Plan& plan : plans())
    poses.push_back({"fp32", 6 * plan.pairs() * static_cast<double>(plan.H * plan.D),
                     [=] { return pose(plan, seed); }});
  for (const auto& [tag, key] :
       std::vector<std::pair<std::string, std::int32_t>>{{"future", 13}, {"another-document", 8}})
    poses.push_back(
        {"fp32", 2e4, [=, tag = tag, key = key] { return pose_stranger(tag, key, seed); }});
  return poses;
}

}  // namespace

Op indexer_scores_backward_op() {
  return {"indexer_scores_backward",
          "d_w = b sum_s act(a) d_s, d_a = b w d_s where a > 0, d_q = c sum_s d_a k, "
          "d_k = c sum_{t,h} d_a q; a = c q.k, s in chosen[t,:]",
          {"fp32"},
          cases,
          judge_elementwise};
}

}  // namespace dsa::verify::kernels
