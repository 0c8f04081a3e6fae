// In double: it costs nothing beside the experts, and logits that fp32 scores would tie stay apart.
#include "optimized/cpu/ops/router.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/threads.hpp"
#include "optimized/shared/pieces.hpp"

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

/// A thread's memory for one token.
struct Work {
  Work(Pieces& pieces, const Config& c)
      : E(c.n_routed_experts),
        s(pieces.take<double>(E)),
        choice(pieces.take<double>(E)),
        group_scores(pieces.take<double>(c.n_group)),
        order(pieces.take<Index>(std::max(E, c.n_group))) {}

  Index E;
  double *s, *choice;    // (E): scores, and what experts are chosen by
  double* group_scores;  // (n_group)
  Index* order;          // of experts, or of groups
};

/// s = sigmoid(z) or softmax(z) of one token.
void score(double* s, const float* z, Index E, Router::Scoring scoring) {
  if (scoring == Router::Scoring::sigmoid) {
    for (Index e = 0; e < E; ++e) s[e] = 1 / (1 + std::exp(-static_cast<double>(z[e])));
    return;
  }
  const double most = *std::max_element(z, z + E);
  double sum = 0;
  for (Index e = 0; e < E; ++e) {
    s[e] = std::exp(static_cast<double>(z[e]) - most);
    sum += s[e];
  }
  for (Index e = 0; e < E; ++e) s[e] /= sum;
}

/// The `count` largest of n values, equal ones in order, into the front of `order`.
void largest(Index* order, const double* values, Index n, Index count) {
  std::iota(order, order + n, Index{0});
  std::partial_sort(order, order + count, order + n, [&](Index a, Index b) {
    return values[a] != values[b] ? values[a] > values[b] : a < b;
  });
}

/// The choices of all groups but the best `topk_group` become `dropped_group_score`.
void drop_groups(const Work& w, const Config& config) {
  const Index groups = config.n_group, size = w.E / groups;
  for (Index g = 0; g < groups; ++g) {
    double best = -infinity, second = -infinity;
    for (Index e = g * size; e < (g + 1) * size; ++e) {
      second = std::max(second, std::min(best, w.choice[e]));
      best = std::max(best, w.choice[e]);
    }
    w.group_scores[g] = config.router.groups == Router::Groups::maximum ? best : best + second;
  }
  largest(w.order, w.group_scores, groups, config.topk_group);
  for (Index i = config.topk_group; i < groups; ++i)
    std::fill_n(w.choice + w.order[i] * size, size, config.router.dropped_group_score);
}

/// One token, whose logits are z.
void choose(std::int32_t* experts, float* weights, const float* z, const float* bias, const Work& w,
            const Config& config) {
  const Index k = config.num_experts_per_tok;
  score(w.s, z, w.E, config.router.scoring);
  for (Index e = 0; e < w.E; ++e) w.choice[e] = bias ? w.s[e] + bias[e] : w.s[e];
  if (config.router.groups != Router::Groups::none) drop_groups(w, config);
  largest(w.order, w.choice, w.E, k);
  std::sort(w.order, w.order + k);
  double sum = 0;
  for (Index i = 0; i < k; ++i) sum += w.s[w.order[i]];
  const double divisor = config.router.norm_topk_prob ? sum + 1e-20 : 1;
  for (Index i = 0; i < k; ++i) {
    experts[i] = static_cast<std::int32_t>(w.order[i]);
    weights[i] = static_cast<float>(w.s[w.order[i]] / divisor * config.routed_scaling_factor);
  }
}

}  // namespace

void router(Cpu, RouterOut y, View<const float, 2> logits, View<const float, 1> bias,
            const Config& config, Scratch scratch) {
  const Index T = logits.shape[0], E = config.n_routed_experts, k = config.num_experts_per_tok;
  expect_shape("logits", logits, {T, E});
  expect_shape("experts", y.experts, {T, k});
  expect_shape("weights", y.weights, {T, k});
  if (bias.data) expect_shape("bias", bias, {E});
  expect_numbers(logits);
  parallel_for(T, 20 * E, [&](Index t, int thread) {
    Pieces pieces(scratch.of_thread(thread));
    choose(y.experts[t].data, y.weights[t].data, logits[t].data, bias.data, Work(pieces, config),
           config);
  });
}

Index router_scratch(const Config& config) {
  Pieces pieces;
  Work(pieces, config);
  return pieces.bytes();
}

}  // namespace dsa::cpu
