// From logits to experts and weights.
//
// A score's error: of a sigmoid, exp's through the share of e^-z in 1 + e^-z, sum and division; of
// a softmax, its own exp's, the weighted mean of all exps' and of E sums. The choice adds a bias:
// one rounding. Groups and experts are decisions within these errors: right if some set of groups
// that could have been kept could have led to the experts chosen. Weights are judged for the
// experts that the kernel chose.
#include "verify/kernels/cases/router.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "reference/ops/router.hpp"
#include "reference/ops/topk_select.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/kernels/decision.hpp"
#include "verify/measure/bounds.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double u = unit_roundoff_fp32, inf = std::numeric_limits<double>::infinity();

struct Plan {
  Index T, E, k, G = 1, kept = 1;
  Router::Scoring scoring = Router::Scoring::sigmoid;
  Router::Groups groups = Router::Groups::none;
  bool bias = false, normalise = true;
  double scale = 2.5, dropped = -inf;
  std::string tag = {};
  double size = 1;  // of the logits
};

/// Scores s and choice of all experts, with their errors. All (T, E).
struct Scores {
  Tensor<double, 2> s, s_error, choice, choice_error;
};

void sigmoid_errors(View<const double, 1> z, View<const double, 1> s, View<double, 1> error) {
  for (Index e = 0; e < z.size(); ++e)
    error(e) =
        s(e) * ((1 - s(e)) * exp_error(std::abs(z(e)), 0) + gamma(2, u)) + 2 * smallest_normal_fp32;
}

void softmax_errors(View<const double, 1> z, View<const double, 1> s, View<double, 1> error) {
  const Index E = z.size();
  const double largest = std::abs(*std::max_element(z.begin(), z.end()));
  double mean = 0;
  for (Index e = 0; e < E; ++e) {
    error(e) = exp_error(std::abs(z(e)) + largest, 0);
    mean += s(e) * error(e);
  }
  for (Index e = 0; e < E; ++e)
    error(e) = s(e) * (error(e) + mean + gamma(E + 2, u)) + 2 * smallest_normal_fp32;
}

Scores scores_of(const Case& c) {
  const auto z = widen<2>(c.in.at("logits"));
  const Index T = z.shape()[0], E = z.shape()[1];
  const Router::Scoring scoring = router_config(c).router.scoring;
  const auto errors_of = scoring == Router::Scoring::softmax ? softmax_errors : sigmoid_errors;
  Tensor<double, 2> s({T, E}), s_error({T, E});
  reference::router_scores<double>(s, z, scoring);
  for (Index t = 0; t < T; ++t) errors_of(z.view()[t], s.view()[t], s_error.view()[t]);
  Scores scores{s, s_error, s, s_error};
  if (const auto bias = c.in.find("bias"); bias != c.in.end()) {
    const auto b = widen<1>(bias->second);
    for (Index t = 0; t < T; ++t)
      for (Index e = 0; e < E; ++e) {
        scores.choice(t, e) += b(e);
        scores.choice_error(t, e) += u * (std::abs(scores.choice(t, e)) + s_error(t, e));
      }
  }
  return scores;
}

Router::Groups groups_of(const Case& c) { return static_cast<Router::Groups>(c.integer("groups")); }

/// The choice of one token as it is once only the groups in `kept` (a bit each) are left.
struct Token {
  Tensor<double, 2> choice, error;  // (1, E)

  Token(const Case& c, const Scores& scores, Index t, std::uint64_t kept)
      : choice({1, scores.s.shape()[1]}), error(choice.shape()) {
    const Index E = choice.size(), size = E / c.integer("n_group");
    for (Index e = 0; e < E; ++e) {
      const bool stays = kept >> (e / size) & 1;
      choice(0, e) = stays ? scores.choice(t, e) : c.scalar("dropped");
      error(0, e) = stays ? scores.choice_error(t, e) : 0;
    }
  }
};

/// Every set of groups that this token may keep.
std::vector<std::uint64_t> kept_groups(const Case& c, const Scores& scores, Index t) {
  const Index G = c.integer("n_group"), kept = c.integer("topk_group"), E = scores.s.shape()[1];
  if (groups_of(c) == Router::Groups::none) return {~std::uint64_t{0}};
  const Token all(c, scores, t, ~std::uint64_t{0});
  Tensor<double, 2> groups({1, G});
  Tensor<double, 1> errors({G});
  reference::router_group_scores<double>(groups, all.choice, groups_of(c));
  for (Index g = 0; g < G; ++g) {
    const double largest =
        *std::max_element(all.error.begin() + g * E / G, all.error.begin() + (g + 1) * E / G);
    errors(g) = groups_of(c) == Router::Groups::maximum
                    ? largest
                    : 2 * largest + u * (std::abs(groups(0, g)) + 2 * largest);
  }
  std::vector<std::uint64_t> sets;
  for (std::uint64_t set = 0; set < std::uint64_t{1} << G; ++set) {
    if (std::popcount(set) != kept) continue;
    std::vector<double> members;
    for (Index g = 0; g < G; ++g)
      if (set >> g & 1) members.push_back(static_cast<double>(g));
    if (judge_row(members, groups.view()[0], errors).ok()) sets.push_back(set);
  }
  return sets;
}

TopkVerdict judge_token(const Case& c, const Scores& scores, Index t,
                        std::span<const double> experts) {
  TopkVerdict best{inf, "no set of groups could have been kept"};
  for (const std::uint64_t set : kept_groups(c, scores, t)) {
    const Token token(c, scores, t, set);
    const TopkVerdict d = judge_row(experts, token.choice.view()[0], token.error.view()[0]);
    if (d.ratio <= best.ratio) best = d;
  }
  return best;
}

/// want["weights"] and allowed["weights"] of these experts (T, k), which are subscripts.
void set_weights(Case& c, const Scores& scores, const Tensor<Index, 2>& experts) {
  const Index T = experts.shape()[0], k = experts.shape()[1];
  const bool normalise = c.flag("norm_topk_prob");
  Tensor<double, 2> weights({T, k});
  reference::router_weights<double>(weights, scores.s, experts, normalise,
                                    c.scalar("routed_scaling_factor"));
  std::vector<double> allowed;
  for (Index t = 0; t < T; ++t) {
    double sum = 0, error = 0;
    for (Index i = 0; i < k; ++i) {
      sum += scores.s(t, experts(t, i));
      error += scores.s_error(t, experts(t, i));
    }
    for (Index i = 0; i < k; ++i) {
      const double s = scores.s(t, experts(t, i));
      double relative = (s > 0 ? scores.s_error(t, experts(t, i)) / s : 0) + gamma(2, u);
      if (normalise && sum > error) relative += error / (sum - error) + gamma(k + 2, u);
      allowed.push_back(std::abs(weights(t, i)) * relative +
                        2 * smallest_normal_fp32 * c.scalar("routed_scaling_factor"));
    }
  }
  c.want["weights"] = list(weights);
  c.allowed["weights"] = std::move(allowed);
}

/// What the reference chooses, in ascending order.
Tensor<Index, 2> chosen_by_reference(const Case& c, const Scores& scores, Index k) {
  const Index T = scores.s.shape()[0], G = c.integer("n_group");
  Tensor<double, 2> choice = scores.choice;
  if (groups_of(c) != Router::Groups::none) {
    Tensor<double, 2> groups({T, G});
    Tensor<Index, 2> kept({T, c.integer("topk_group")});
    reference::router_group_scores<double>(groups, choice, groups_of(c));
    reference::topk_select<double>(kept, groups);
    reference::router_drop_groups<double>(choice, kept, G, c.scalar("dropped"));
  }
  Tensor<Index, 2> experts({T, k});
  reference::topk_select<double>(experts, choice);
  for (Index t = 0; t < T; ++t) std::sort(experts.view()[t].begin(), experts.view()[t].end());
  return experts;
}

/// Error: scalars that no router of E experts has.
void expect_router(const Case& c) {
  const Index E = c.sizes.at('E'), k = c.integer("num_experts_per_tok"), G = c.integer("n_group"),
              kept = c.integer("topk_group");
  constexpr Index most_groups = 16;  // the sets of groups are gone through one by one
  require(0 < k && k <= E, "num_experts_per_tok is " + std::to_string(k) + ", expected 1 to " +
                               std::to_string(E) + ", the number of experts");
  require(0 < G && G <= most_groups && E % G == 0 && 0 < kept && kept <= G,
          "topk_group is " + std::to_string(kept) + " of n_group " + std::to_string(G) +
              ", expected groups of equal size, at most " + std::to_string(most_groups));
  require(c.scalar("scoring") == 0 || c.scalar("scoring") == 1,
          "scoring is neither 0, sigmoid, nor 1, softmax");
  const double groups = c.scalar("groups");
  require(groups == 0 || groups == 1 || groups == 2,
          "groups is neither 0, none, nor 1, the sum of two, nor 2, the maximum");
  require(groups != 1 || E / G >= 2, "a group has one expert, expected two to be summed");
}

void set_answer(Case& c) {
  expect_router(c);
  const Index T = c.sizes.at('T'), k = c.integer("num_experts_per_tok");
  c.out["experts"] = Array(Dtype::i32, {T, k});
  c.out["weights"] = Array(Dtype::f32, {T, k});
  const Scores scores = scores_of(c);
  const Tensor<Index, 2> experts = chosen_by_reference(c, scores, k);
  c.want["experts"].assign(experts.begin(), experts.end());
  c.allowed["experts"].assign(c.want["experts"].size(), 0);
  set_weights(c, scores, experts);
}

Case pose(const Plan& plan, std::uint64_t seed) {
  const Index T = plan.T, E = plan.E, k = plan.k;
  Case c = start_case("router", "fp32", {{'T', T}, {'E', E}, {'K', k}, {'G', plan.G}},
                      plan.tag.empty() ? Inputs::gaussian : Inputs::adversarial, plan.tag);
  Draw draw(c, seed);
  c.scalars = {{"num_experts_per_tok", static_cast<double>(k)},
               {"n_group", static_cast<double>(plan.G)},
               {"topk_group", static_cast<double>(plan.kept)},
               {"scoring", plan.scoring == Router::Scoring::softmax},
               {"groups", static_cast<double>(plan.groups)},
               {"norm_topk_prob", plan.normalise},
               {"routed_scaling_factor", plan.scale},
               {"dropped", plan.dropped}};
  c.in["logits"] = draw.numbers(Dtype::f32, {T, E}, plan.size);
  if (plan.bias) c.in["bias"] = draw.numbers(Dtype::f32, {E}, 0.1);
  if (plan.tag == "nan") {
    c.out["experts"] = Array(Dtype::i32, {T, k});
    c.out["weights"] = Array(Dtype::f32, {T, k});
    c.in["logits"].as<float, 2>()(T - 3, E - 2) = std::numeric_limits<float>::quiet_NaN();
    c.refusal = {"NaN", std::to_string(T - 3)};
    return finished(std::move(c));
  }
  set_answer(c);
  return finished(std::move(c));
}

std::vector<OutputVerdict> judge(const Case& c, const Arrays& out) {
  const std::vector<double> experts = values_of(c, out, "experts");
  const std::vector<double> weights = values_of(c, out, "weights");
  const Index T = c.out.at("experts").shape()[0], k = c.out.at("experts").shape()[1];
  const Scores scores = scores_of(c);
  Tensor<Index, 2> chosen({T, k});
  OutputVerdict decisions{"experts", {T, k}, {}};
  for (Index t = 0; t < T; ++t) {
    const auto mine =
        std::span(experts).subspan(static_cast<std::size_t>(t * k), static_cast<std::size_t>(k));
    const TopkVerdict row = judge_token(c, scores, t, mine);
    add_row(decisions, t, row, "token");
    for (Index i = 0; i < k; ++i)  // weights of what is no expert are held against expert 0's
      chosen(t, i) =
          std::isinf(row.ratio) ? 0 : static_cast<Index>(mine[static_cast<std::size_t>(i)]);
  }
  Case mine = c;
  set_weights(mine, scores, chosen);
  return {decisions,
          {"weights", {T, k}, compare(weights, mine.want["weights"], mine.allowed["weights"])}};
}

std::vector<Plan> plans() {
  using enum Router::Scoring;
  using Groups = Router::Groups;
  const Groups none = Groups::none, two = Groups::sum_of_two, most = Groups::maximum;
  std::vector<Plan> all = {
      {0, 8, 2},
      {1, 1, 1},
      {3, 5, 2},
      {7, 33, 33},
      {5, 16, 3, 4, 2, sigmoid, two, true},
      {65, 256, 8, 8, 4, sigmoid, two, true},               // V3, R1, V3.1, V3.2
      {65, 160, 6, 8, 3, softmax, most, false, false, 16},  // V2
      {65, 64, 6, 1, 1, softmax, none, false, false, 1},    // V2-Lite
      {33, 256, 8, 1, 1, sigmoid, none, true},              // GLM-5
      {9, 512, 10, 1, 1, softmax, none, false},
      {3, 520, 10, 1, 1, sigmoid, none, true},
      {33, 64, 4, 8, 2, sigmoid, two, true, true, 2.5, 0, "dropped-zero"},
      {9, 64, 4, 8, 2, sigmoid, two, false, true, 2.5, -inf, "equal", 0},
      {9, 64, 4, 8, 2, sigmoid, two, true, true, 2.5, -inf, "saturated", 60},
      {9, 64, 4, 8, 2, softmax, most, false, true, 1, -inf, "saturated-softmax", 60},
      {40, 256, 8, 8, 4, sigmoid, two, true, true, 2.5, -inf, "nan"}};
  return all;
}

}  // namespace

Op router_op() {
  return {"router",
          "experts = top-k of sigmoid(z) + bias within the best groups; weights by sigmoid(z)",
          {"fp32"},
          [](std::uint64_t seed) {
            Poses poses;
            for (const Plan& plan : plans())
              poses.push_back({"fp32", 0, [=] { return pose(plan, seed); }});
            return poses;
          },
          judge,
          set_answer,
          {{"logits", "TE", InputRule::Kind::fp32}, {"bias", "E", InputRule::Kind::fp32, true}},
          {{"num_experts_per_tok", must_be_given, true},
           {"n_group", 1, true},
           {"topk_group", 1, true},
           {"scoring", 0, true},
           {"groups", 0, true},
           {"norm_topk_prob", 1, true},
           {"routed_scaling_factor", 1},
           {"dropped", -inf}}};
}

Config router_config(const Case& c) {
  Config config;
  config.n_routed_experts = c.in.at("logits").shape()[1];
  config.num_experts_per_tok = c.integer("num_experts_per_tok");
  config.n_group = c.integer("n_group");
  config.topk_group = c.integer("topk_group");
  config.routed_scaling_factor = c.scalar("routed_scaling_factor");
  config.router.scoring = static_cast<Router::Scoring>(c.integer("scoring"));
  config.router.groups = static_cast<Router::Groups>(c.integer("groups"));
  config.router.norm_topk_prob = c.flag("norm_topk_prob");
  config.router.dropped_group_score = c.scalar("dropped");
  config.router.has_correction_bias = c.in.contains("bias");
  return config;
}

}  // namespace dsa::verify::kernels
