// A row in double: E numbers cost nothing beside the experts.
#include "optimized/cpu/ops/router_backward.hpp"

#include <algorithm>
#include <cmath>

namespace dsa::cpu {
namespace {

double sum_of(const float* s, Index E) {
  double sum = 0;
  for (Index e = 0; e < E; ++e) sum += static_cast<double>(s[e]);
  return sum;
}

void score(float* s, const float* z, Index E, Router::Scoring scoring) {
  if (scoring == Router::Scoring::sigmoid) {
    for (Index e = 0; e < E; ++e)
      s[e] = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(z[e]))));
    return;
  }
  const float most = *std::max_element(z, z + E);
  double sum = 0;
  for (Index e = 0; e < E; ++e)
    sum += std::exp(static_cast<double>(z[e]) - static_cast<double>(most));
  for (Index e = 0; e < E; ++e)
    s[e] =
        static_cast<float>(std::exp(static_cast<double>(z[e]) - static_cast<double>(most)) / sum);
}

void weights_row(float* d_s, const float* s, const std::int32_t* experts, const float* d_weights,
                 const Config& config) {
  const Index k = config.num_experts_per_tok;
  double sum = 0, along = 0;
  for (Index i = 0; i < k; ++i) sum += static_cast<double>(s[experts[i]]);
  const double divisor = config.router.norm_topk_prob ? sum + 1e-20 : 1;
  for (Index i = 0; i < k && config.router.norm_topk_prob; ++i)
    along += static_cast<double>(d_weights[i]) * static_cast<double>(s[experts[i]]) / divisor;
  for (Index i = 0; i < k; ++i)
    d_s[experts[i]] = static_cast<float>(config.routed_scaling_factor *
                                         (static_cast<double>(d_weights[i]) - along) / divisor);
}

/// Rows [begin, end) are a document; f (E) is its own.
double balance_document(View<float, 2> d_s, const BalanceIn& in, Index begin, Index end,
                        double factor, double* f) {
  const Index E = in.s.shape[1], k = in.experts.shape[1];
  const auto rows = static_cast<double>(end - begin);
  std::fill_n(f, E, 0.0);
  for (Index t = begin; t < end; ++t)
    for (Index i = 0; i < k; ++i)
      f[in.experts.data[t * k + i]] += static_cast<double>(E) / (static_cast<double>(k) * rows);
  double loss = 0;
  for (Index t = begin; t < end; ++t) {
    const float* const s = in.s.data + t * E;
    const double sum = sum_of(s, E);
    double mean = 0;  // sum_e a f
    for (Index e = 0; e < E; ++e) mean += f[e] * static_cast<double>(s[e]) / sum;
    loss += mean / rows;
    if (d_s.data)
      for (Index e = 0; e < E; ++e)
        d_s.data[t * E + e] += static_cast<float>(factor / rows * (f[e] - mean) / sum);
  }
  return loss;
}

}  // namespace

void router_scores(Cpu, View<float, 2> s, View<const float, 2> logits, Router::Scoring scoring) {
  const Index T = logits.shape[0], E = logits.shape[1];
  expect_shape("s", s, {T, E});
#pragma omp parallel for schedule(static)
  for (Index t = 0; t < T; ++t) score(s.data + t * E, logits.data + t * E, E, scoring);
}

void router_weights_backward(Cpu, View<float, 2> d_s, View<const float, 2> s,
                             View<const std::int32_t, 2> experts, View<const float, 2> d_weights,
                             const Config& config) {
  const Index T = s.shape[0], E = s.shape[1], k = config.num_experts_per_tok;
  expect_shape("d_s", d_s, {T, E});
  expect_shape("experts", experts, {T, k});
  expect_shape("d_weights", d_weights, {T, k});
#pragma omp parallel for schedule(static)
  for (Index t = 0; t < T; ++t) {
    std::fill_n(d_s.data + t * E, E, 0.0f);
    weights_row(d_s.data + t * E, s.data + t * E, experts.data + t * k, d_weights.data + t * k,
                config);
  }
}

double balance_loss(Cpu, View<float, 2> d_s, const BalanceIn& in, double factor,
                    TrainMemory& memory) {
  const Index T = in.s.shape[0], E = in.s.shape[1];
  if (d_s.data) expect_shape("d_s", d_s, {T, E});
  expect_shape("begin", in.begin, {T});
  const Scratch scratch = memory.threads(E * static_cast<Index>(sizeof(double)));
  auto* const losses =
      reinterpret_cast<double*>(memory.shared(8 * T));  // at a document's first row
#pragma omp parallel for schedule(dynamic)
  for (Index t = 0; t < T; ++t) {
    losses[t] = 0;
    if (in.begin.data[t] != t) continue;
    Index end = t + 1;
    while (end < T && in.begin.data[end] == t) ++end;
    auto* const f = reinterpret_cast<double*>(scratch.of_thread(omp_get_thread_num()));
    losses[t] = balance_document(d_s, in, t, end, factor, f);
  }
  double loss = 0;
  for (Index t = 0; t < T; ++t) loss += losses[t];
  return loss;
}

void router_scores_backward(Cpu, View<float, 2> d_s, View<const float, 2> s,
                            Router::Scoring scoring) {
  const Index T = s.shape[0], E = s.shape[1];
  expect_shape("d_s", d_s, {T, E});
#pragma omp parallel for schedule(static)
  for (Index t = 0; t < T; ++t) {
    float* const d = d_s.data + t * E;
    const float* const a = s.data + t * E;
    double along = 0;
    if (scoring == Router::Scoring::softmax)
      for (Index e = 0; e < E; ++e) along += static_cast<double>(d[e]) * static_cast<double>(a[e]);
    for (Index e = 0; e < E; ++e)
      d[e] = scoring == Router::Scoring::sigmoid ? d[e] * a[e] * (1 - a[e])
                                                 : a[e] * (d[e] - static_cast<float>(along));
  }
}

}  // namespace dsa::cpu
