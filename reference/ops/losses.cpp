#include "reference/ops/losses.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "reference/dual.hpp"
#include "reference/ops/mla.hpp"

namespace dsa::reference {
namespace {

void expect_target(Token target, std::size_t t, Index vocabulary) {
  require(target < vocabulary, "target " + std::to_string(target) + " of row " + std::to_string(t) +
                                   " is outside the vocabulary of " + std::to_string(vocabulary));
}

/// The rows of each document, padding left out.
std::map<Index, std::vector<Index>> rows_by_document(std::span<const Index> documents) {
  std::map<Index, std::vector<Index>> rows;
  for (std::size_t t = 0; t < documents.size(); ++t)
    if (documents[t] >= 0) rows[documents[t]].push_back(static_cast<Index>(t));
  return rows;
}

/// f_e of one document.
template <class Real>
std::vector<Real> loads(const BalanceInputs<Real>& in, const std::vector<Index>& rows) {
  const Index E = in.s.shape[1], k = in.experts.shape[1];
  std::vector<Real> f(static_cast<std::size_t>(E));
  for (Index t : rows)
    for (Index i = 0; i < k; ++i)
      f[static_cast<std::size_t>(in.experts(t, i))] +=
          static_cast<Real>(E) / static_cast<Real>(k * static_cast<Index>(rows.size()));
  return f;
}

template <class Real>
Real row_sum(View<const Real, 2> s, Index t) {
  Real sum = 0;
  for (Index e = 0; e < s.shape[1]; ++e) sum += s(t, e);
  return sum;
}

}  // namespace

std::vector<Token> targets_of(const Sequence& sequence, Index ahead) {
  std::vector<Token> targets(sequence.tokens.size(), -1);
  const auto n = static_cast<std::size_t>(ahead);
  for (std::size_t t = 0; t + n < targets.size(); ++t)
    if (sequence.documents[t] >= 0 && sequence.documents[t] == sequence.documents[t + n])
      targets[t] = sequence.tokens[t + n];
  return targets;
}

template <class Real>
std::vector<Real> mean_over_targets(std::span<const Token> targets,
                                    std::span<const double> shares) {
  require(shares.empty() || shares.size() == targets.size(),
          "there are " + std::to_string(shares.size()) + " weights of tokens, expected one for " +
              "each of the " + std::to_string(targets.size()) + " rows");
  std::vector<Real> weights(targets.size());
  Real sum = 0;
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] >= 0) weights[t] = shares.empty() ? Real(1) : static_cast<Real>(shares[t]);
    sum += weights[t];
  }
  if (sum > 0)
    for (Real& w : weights) w /= sum;
  return weights;
}

template <class Real>
Real cross_entropy(View<const Real, 2> logits, std::span<const Token> targets,
                   std::span<const Real> weights) {
  using std::exp, std::log;
  const Index V = logits.shape[1];
  Real loss = 0;
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] < 0 || weights[t] == 0) continue;
    expect_target(targets[t], t, V);
    const auto z = logits[static_cast<Index>(t)];
    const Real largest = *std::max_element(z.begin(), z.end());
    Real sum = 0;
    for (Index v = 0; v < V; ++v) sum += exp(z(v) - largest);
    loss += weights[t] * (log(sum) + (largest - z(targets[t])));
  }
  return loss;
}

template <class Real>
void cross_entropy_backward(View<Real, 2> d_logits, View<const Real, 2> logits,
                            std::span<const Token> targets, std::span<const Real> weights) {
  const Index V = logits.shape[1];
  expect_shape("d_logits", d_logits, logits.shape);
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] < 0 || weights[t] == 0) continue;
    expect_target(targets[t], t, V);
    const Index row = static_cast<Index>(t);
    std::vector<Real> p(logits[row].begin(), logits[row].end());
    softmax(p.data(), V);
    for (Index v = 0; v < V; ++v)
      d_logits(row, v) += weights[t] * (p[static_cast<std::size_t>(v)] - (v == targets[t] ? 1 : 0));
  }
}

template <class Real>
Real balance_loss(const BalanceInputs<Real>& in, Real alpha) {
  const auto documents = rows_by_document(in.documents);
  Real loss = 0;
  for (const auto& [document, rows] : documents) {
    const std::vector<Real> f = loads(in, rows);
    for (Index t : rows) {
      const Real sum = row_sum(in.s, t);
      for (Index e = 0; e < in.s.shape[1]; ++e)
        loss += f[static_cast<std::size_t>(e)] * in.s(t, e) / sum / static_cast<Real>(rows.size());
    }
  }
  return documents.empty() ? Real(0) : alpha * loss / static_cast<Real>(documents.size());
}

template <class Real>
void balance_loss_backward(View<Real, 2> d_s, const BalanceInputs<Real>& in, Real alpha) {
  expect_shape("d_s", d_s, in.s.shape);
  const auto documents = rows_by_document(in.documents);
  for (const auto& [document, rows] : documents) {
    const std::vector<Real> f = loads(in, rows);
    const Real share = alpha / static_cast<Real>(documents.size()) / static_cast<Real>(rows.size());
    for (Index t : rows) {
      const Real sum = row_sum(in.s, t);
      Real mean = 0;  // sum_e a f
      for (Index e = 0; e < in.s.shape[1]; ++e)
        mean += f[static_cast<std::size_t>(e)] * in.s(t, e) / sum;
      for (Index e = 0; e < in.s.shape[1]; ++e)
        d_s(t, e) += share * (f[static_cast<std::size_t>(e)] - mean) / sum;
    }
  }
}

void update_router_bias(std::span<double> bias, std::span<const Index> load, double gamma) {
  require(bias.size() == load.size(), "there are " + std::to_string(load.size()) +
                                          " loads, expected one for each of the " +
                                          std::to_string(bias.size()) + " experts");
  double mean = 0;
  for (Index n : load) mean += static_cast<double>(n) / static_cast<double>(load.size());
  for (std::size_t e = 0; e < bias.size(); ++e) {
    const double less = mean - static_cast<double>(load[e]);
    bias[e] += gamma * static_cast<double>((less > 0) - (less < 0));
  }
}

#define DSA_INSTANTIATE_FORWARD(Real)                                                              \
  template std::vector<Real> mean_over_targets(std::span<const Token>, std::span<const double>);   \
  template Real cross_entropy(View<const Real, 2>, std::span<const Token>, std::span<const Real>); \
  template Real balance_loss(const BalanceInputs<Real>&, Real);
#define DSA_INSTANTIATE(Real)                                                                      \
  DSA_INSTANTIATE_FORWARD(Real)                                                                    \
  template void cross_entropy_backward(View<Real, 2>, View<const Real, 2>, std::span<const Token>, \
                                       std::span<const Real>);                                     \
  template void balance_loss_backward(View<Real, 2>, const BalanceInputs<Real>&, Real);
DSA_INSTANTIATE(double)
DSA_INSTANTIATE(long double)
DSA_INSTANTIATE_FORWARD(Dual)

}  // namespace dsa::reference
