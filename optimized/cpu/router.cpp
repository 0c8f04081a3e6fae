// In double: it costs nothing beside the experts, and logits that fp32 scores would tie stay apart.
#include "optimized/cpu/router.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace dsa::cpu {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

void expect_numbers(View<const float, 2> logits) {
  for (Index t = 0; t < logits.shape[0]; ++t)
    for (Index e = 0; e < logits.shape[1]; ++e)
      if (std::isnan(logits(t, e)))
        throw Error("logit (" + std::to_string(t) + ", " + std::to_string(e) +
                    ") of the router is NaN: there is no order to select by");
}

/// s = sigmoid(z) or softmax(z) of one token.
void score(std::vector<double>& s, const float* z, Router::Scoring scoring) {
  if (scoring == Router::Scoring::sigmoid) {
    for (double& x : s) x = 1 / (1 + std::exp(-static_cast<double>(*z++)));
    return;
  }
  const double most = *std::max_element(z, z + s.size());
  double sum = 0;
  for (double& x : s) sum += x = std::exp(static_cast<double>(*z++) - most);
  for (double& x : s) x /= sum;
}

/// The `count` largest of `values`, equal ones in order, into the front of `order`.
void largest(std::vector<Index>& order, const std::vector<double>& values, Index count) {
  order.resize(values.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<Index>(i);
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](Index a, Index b) {
    const double x = values[static_cast<std::size_t>(a)], y = values[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
}

/// The choices of all groups but the best `topk_group` become `dropped_group_score`.
void drop_groups(std::vector<double>& choice, std::vector<Index>& order, const Config& config) {
  const auto groups = static_cast<std::size_t>(config.n_group), size = choice.size() / groups;
  std::vector<double> group_scores(groups);
  for (std::size_t g = 0; g < groups; ++g) {
    double best = -infinity, second = -infinity;
    for (std::size_t e = g * size; e < (g + 1) * size; ++e) {
      second = std::max(second, std::min(best, choice[e]));
      best = std::max(best, choice[e]);
    }
    group_scores[g] = config.router.groups == Router::Groups::maximum ? best : best + second;
  }
  largest(order, group_scores, config.topk_group);
  for (auto g = order.begin() + config.topk_group; g != order.end(); ++g)
    std::fill_n(choice.begin() + *g * static_cast<Index>(size), size,
                config.router.dropped_group_score);
}

}  // namespace

void router(Cpu, View<std::int32_t, 2> experts, View<float, 2> weights, View<const float, 2> logits,
            View<const float, 1> bias, const Config& config) {
  const Index T = logits.shape[0], E = logits.shape[1], k = config.num_experts_per_tok;
  expect_shape("experts", experts, {T, k});
  expect_shape("weights", weights, {T, k});
  if (bias.data) expect_shape("bias", bias, {E});
  expect_numbers(logits);
#pragma omp parallel
  {
    std::vector<double> s(static_cast<std::size_t>(E)), choice;
    std::vector<Index> order;
#pragma omp for schedule(static)
    for (Index t = 0; t < T; ++t) {
      score(s, logits[t].data, config.router.scoring);
      choice = s;
      for (Index e = 0; bias.data && e < E; ++e) choice[static_cast<std::size_t>(e)] += bias(e);
      if (config.router.groups != Router::Groups::none) drop_groups(choice, order, config);
      largest(order, choice, k);
      std::sort(order.begin(), order.begin() + k);
      double sum = 0;
      for (Index i = 0; i < k; ++i)
        sum += s[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
      const double divisor = config.router.norm_topk_prob ? sum + 1e-20 : 1;
      for (Index i = 0; i < k; ++i) {
        experts(t, i) = static_cast<std::int32_t>(order[static_cast<std::size_t>(i)]);
        weights(t, i) = static_cast<float>(s[static_cast<std::size_t>(experts(t, i))] / divisor *
                                           config.routed_scaling_factor);
      }
    }
  }
}

}  // namespace dsa::cpu
