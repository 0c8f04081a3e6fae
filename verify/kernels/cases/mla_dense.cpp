#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/indexer.hpp"
#include "verify/kernels/cases/mla.hpp"

namespace dsa::verify::kernels {
namespace {

struct Plan {
  std::string dtype;
  Index T, S, N, R, P;
  Inputs inputs = Inputs::gaussian;
  std::string tag = {};
  Sees sees = Sees::causal;
  double size = 1;  // of the scores
};

void set_answer(Case& c) {
  expect_ranges(c);
  set_attention(c, latents_in(c, c.integer("R")), visible_keys(c));
}

Case pose(const Plan& plan, std::uint64_t seed) {
  const auto& [dtype, T, S, N, R, P, inputs, tag, sees, size] = plan;
  Case c = start_case("mla_dense", dtype, {{'T', T}, {'S', S}, {'N', N}, {'R', R}, {'P', P}},
                      inputs, tag);
  Draw draw(c, seed);
  draw_latents(c, draw, {dtype, T, S, N, R, P, size, tag != "any-scale"});
  std::tie(c.in["begin"], c.in["end"]) = ranges(sees, T, S);
  set_answer(c);
  if (tag == "unseen-nan") make_unseen_nan(c.in["kv"], seen_keys(visible_keys(c), S));
  return finished(std::move(c));
}

std::vector<Plan> plans() {
  std::vector<Plan> all;
  const Inputs hard = Inputs::adversarial;
  for (const std::string dtype : {"fp32", "bf16", "fp8"}) {
    for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian}) {
      for (const auto& [T, S, N, R, P] : std::vector<std::array<Index, 5>>{{0, 5, 2, 8, 4},
                                                                           {1, 1, 1, 1, 1},
                                                                           {2, 7, 1, 5, 2},
                                                                           {5, 5, 3, 16, 6},
                                                                           {7, 40, 5, 130, 10},
                                                                           {33, 65, 4, 64, 32},
                                                                           {3, 300, 33, 100, 64},
                                                                           {2, 200, 128, 512, 64}})
        all.push_back({dtype, T, S, N, R, P, inputs});
      all.push_back({dtype, 17, 100, 3, 32, 16, inputs, "packed", Sees::packed});
      all.push_back({dtype, 16, 64, 3, 32, 16, inputs, "empty-rows", Sees::nothing_in_some});
    }
    all.push_back({dtype, 64, 256, 16, 512, 64});
    all.push_back({dtype, 12, 70, 5, 48, 16, hard, "unseen-nan", Sees::from_the_start});
    all.push_back({dtype, 9, 60, 5, 48, 16, hard, "huge-scores", Sees::causal, 1000});
    all.push_back({dtype, 9, 60, 5, 48, 16, hard, "peaked", Sees::causal, 30});
  }
  all.push_back({"fp8", 9, 60, 5, 200, 16, hard, "any-scale"});
  for (const std::string dtype : {"fp32", "bf16", "fp8"})  // 16 and 64 heads; one query
    for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian})
      for (const auto& [T, S, N, R, P] : std::vector<std::array<Index, 5>>{
               {3, 37, 16, 32, 16}, {4, 70, 64, 32, 16}, {1, 300, 3, 32, 16}})
        all.push_back({dtype, T, S, N, R, P, inputs});
  return all;
}

Poses cases(std::uint64_t seed) {
  Poses poses;
  for (const Plan& plan : plans())
    poses.push_back({plan.dtype, twice(plan.T, plan.S, plan.N, 2 * plan.R + plan.P),
                     [=] { return pose(plan, seed); }});
  return poses;
}

}  // namespace

Op dense_attention_op() {
  return {
      "mla_dense",
      "out[t,n,:] = sum_s softmax_s( scale q[t,n,:] . kv[s,:] ) kv[s,:R], begin[t] <= s < end[t]",
      {"fp32", "bf16", "fp8"},
      cases,
      judge_elementwise,
      set_answer,
      {{"q", "TN?", InputRule::Kind::bf16_or_fp32},
       {"kv", "S?", InputRule::Kind::rows},
       {"begin", "T", InputRule::Kind::int32},
       {"end", "T", InputRule::Kind::int32}},
      {{"scale"}, {"R", must_be_given, true}}};
}

}  // namespace dsa::verify::kernels
