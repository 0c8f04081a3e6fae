// The K largest of each row. Scores are given, so that only one answer is right.
#include <bit>
#include <limits>

#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/kernels/decision.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

/// One score, from a row's number, a subscript, and dice.
using Score = std::function<float(Draw&, Index t, Index s)>;

struct Plan {
  Index T, S, K;
  std::string tag = {};
  Score score = {};  // empty: normal
};

void set_answer(Case& c) {
  const auto scores = widen<2>(c.in.at("scores"));
  set_selection(c, scores, Tensor<double, 2>(scores.shape()), topk_of(c));
}

Case pose(const Plan& plan, std::uint64_t seed) {
  const auto& [T, S, K, tag, score] = plan;
  Case c = start_case("topk_select", "fp32", {{'T', T}, {'S', S}, {'K', K}},
                      score ? Inputs::adversarial : Inputs::gaussian, tag);
  Draw draw(c, seed);
  c.scalars["topk"] = static_cast<double>(K);
  c.in["scores"] = draw.numbers(Dtype::f32, {T, S});
  if (score)
    for (Index t = 0; t < T; ++t)
      for (Index s = 0; s < S; ++s) c.in["scores"].as<float, 2>()(t, s) = score(draw, t, s);
  c.out["chosen"] = Array(Dtype::i32, {T, K});
  if (tag == "nan") {
    c.in["scores"].as<float, 2>()(T - 3, S - 2) = std::numeric_limits<float>::quiet_NaN();
    c.refusal = {"NaN", std::to_string(T - 3), std::to_string(S - 2)};
  } else {
    set_answer(c);
  }
  return finished(std::move(c));
}

/// Every bit pattern but those of NaN.
float any_bits(Draw& draw, Index, Index) {
  float x = 0;
  do x = std::bit_cast<float>(static_cast<std::uint32_t>(draw.bits()));
  while (std::isnan(x));
  return x;
}

std::vector<Plan> plans() {
  const Score normal = [](Draw& d, Index, Index) {
    return static_cast<float>(gaussian(d.bits(), 0));
  };
  const Score one_ulp_apart = [](Draw& d, Index, Index) {
    return std::bit_cast<float>(0x3f800000u + static_cast<std::uint32_t>(d.below(5)));
  };
  const auto seen = [=](auto sees) {
    return [=](Draw& d, Index t, Index s) { return sees(t, s) ? normal(d, t, s) : -inf; };
  };
  std::vector<Plan> all = {{0, 5, 3},      {3, 0, 4},       {1, 1, 1},       {2, 5, 1},
                           {3, 7, 7},      {3, 7, 10},      {5, 33, 16},     {9, 257, 64},
                           {4, 1000, 129}, {3, 4099, 2048}, {32, 8192, 2048}};
  for (const auto& [S, K] : {std::pair<Index, Index>{9, 4}, {130, 32}, {3001, 512}}) {
    const Index size = S, k = K;
    all.push_back({7, S, K, "zeros", [](Draw&, Index, Index) { return 0.0f; }});
    all.push_back({7, S, K, "signed-zeros",
                   [](Draw& d, Index, Index) { return d.bits() % 2 ? 0.0f : -0.0f; }});
    all.push_back({7, S, K, "mostly-zeros", [](Draw& d, Index, Index) {
                     return d.bits() % 8 ? 0.0f : static_cast<float>(d.below(3)) - 1;
                   }});
    all.push_back({7, S, K, "few-values",
                   [](Draw& d, Index, Index) { return static_cast<float>(d.below(4)) - 2; }});
    all.push_back({7, S, K, "any-bits", any_bits});
    all.push_back(
        {7, S, K, "ascending", [](Draw&, Index, Index s) { return static_cast<float>(s); }});
    all.push_back(
        {7, S, K, "descending", [](Draw&, Index, Index s) { return -static_cast<float>(s); }});
    all.push_back({7, S, K, "one-ulp-apart", one_ulp_apart});
    all.push_back({7, S, K, "causal", seen([=](Index t, Index s) { return s <= size - 7 + t; })});
    all.push_back({7, S, K, "fewer-than-topk",
                   seen([=](Index t, Index s) { return s % 7 == t && s < 2 * k; })});
    all.push_back(
        {7, S, K, "none-visible-in-some", seen([](Index t, Index) { return t % 2 == 0; })});
    all.push_back({7, S, K, "nan", normal});
  }
  // More nearly equal scores than a kernel has room for that gathers what comes into question.
  all.push_back({2, 9001, 64, "one-ulp-apart", one_ulp_apart});
  return all;
}

std::vector<OutputVerdict> judge(const Case& c, const Arrays& out) {
  return {judge_selection(c, out)};
}

Poses cases(std::uint64_t seed) {
  Poses poses;
  for (const Plan& plan : plans())
    poses.push_back({"fp32", static_cast<double>(plan.T * plan.S),  // a comparison of every score
                     [=] { return pose(plan, seed); }});
  return poses;
}

}  // namespace

Op topk_select_op() {
  return {"topk_select",
          "chosen[t,:] = the min(K, visible) subscripts of largest scores[t,:], ascending, then -1",
          {"fp32"},
          cases,
          judge,
          set_answer,
          {{"scores", "TS", InputRule::Kind::fp32}},
          {{"topk", must_be_given, true}}};
}

}  // namespace dsa::verify::kernels
