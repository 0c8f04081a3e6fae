#include "text/sampling.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/random.hpp"

namespace dsa::text {
namespace {

Token largest(View<const float, 1> logits) {
  for (Index v = 0; v < logits.size(); ++v)
    if (!(logits(v) < INFINITY))
      throw Error("the model's logit of token " + std::to_string(v) + " is " +
                  (std::isnan(logits(v)) ? "NaN" : "infinite") +
                  ", expected a number; is the checkpoint damaged (dsa-run inspect)?");
  const Token best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  require(logits(best) > -INFINITY, "every logit is -infinity, expected a number");
  return best;
}

/// The likeliest tokens, in descending order, up to the one with which they have `share` of the
/// whole weight.
void keep_nucleus(std::vector<Token>& tokens, const std::vector<double>& weight, double share) {
  std::stable_sort(tokens.begin(), tokens.end(), [&weight](Token a, Token b) {
    return weight[static_cast<std::size_t>(a)] > weight[static_cast<std::size_t>(b)];
  });
  const double wanted = share * std::accumulate(weight.begin(), weight.end(), 0.0);
  double sum = 0;
  std::size_t kept = 0;
  while (kept < tokens.size() && (kept == 0 || sum < wanted))
    sum += weight[static_cast<std::size_t>(tokens[kept++])];
  tokens.resize(kept);
}

}  // namespace

Token sample(View<const float, 1> logits, const Sampling& sampling, std::uint64_t step) {
  const Token best = largest(logits);
  if (sampling.temperature == 0) return best;
  std::vector<double> weight;
  for (const float logit : logits)
    weight.push_back(std::exp((double{logit} - double{logits(best)}) / sampling.temperature));
  std::vector<Token> tokens(weight.size());
  std::iota(tokens.begin(), tokens.end(), Token{0});
  if (sampling.top_p < 1) keep_nucleus(tokens, weight, sampling.top_p);

  double whole = 0;
  for (const Token token : tokens) whole += weight[static_cast<std::size_t>(token)];
  double left = uniform(sampling.seed, step) * whole;
  for (const Token token : tokens) {
    left -= weight[static_cast<std::size_t>(token)];
    if (left < 0) return token;
  }
  return best;  // rounding left a little of the whole
}

double log_sum_exp(View<const float, 1> logits) {
  const double top = logits(largest(logits));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - top);
  return top + std::log(sum);
}

}  // namespace dsa::text
