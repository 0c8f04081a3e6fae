#include "verify/gradients/distance.hpp"

#include <algorithm>
#include <cmath>

#include "verify/measure/stats.hpp"

namespace dsa::verify {
namespace {

double largest(const Values& x) {
  double m = 0;
  for (double value : x) m = std::max(m, std::abs(value));
  return m;
}

/// Mean and variance of the logarithms of some draws.
struct Spread {
  double mean = 0, variance = 0;
};
Spread spread_of(const std::vector<double>& draws) {
  Spread s;
  const auto M = static_cast<double>(draws.size());
  for (double x : draws) s.mean += std::log(std::max(x, 1e-300)) / M;
  for (double x : draws)
    s.variance += std::pow(std::log(std::max(x, 1e-300)) - s.mean, 2) / (M - 1);
  return s;
}

}  // namespace

double norm(const Values& x) {
  double squares = 0;
  for (double value : x) squares += value * value;
  return std::sqrt(squares);
}

GradientDistance distance(const Values& got, const Values& want) {
  GradientDistance d;
  double squares = 0, worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double error = std::abs(got[i] - want[i]);
    squares += error * error;
    if (error <= worst || std::isnan(worst)) continue;  // the first NaN is the worst, and stays
    worst = error, d.at = static_cast<Index>(i);
  }
  d.whole = std::sqrt(squares) / norm(want);
  d.element = worst / largest(want);
  return d;
}

double cosine(const Values& a, const Values& b) {
  double product = 0;
  for (std::size_t i = 0; i < a.size(); ++i) product += a[i] * b[i];
  return product / (norm(a) * norm(b));
}

DistanceLimits::DistanceLimits(const std::vector<std::vector<double>>& draws) : draws_(draws) {
  for (const std::vector<double>& of_one : draws) {
    if (of_one.size() < 2) continue;
    const auto freedom = static_cast<double>(of_one.size() - 1);
    pooled_ += freedom * spread_of(of_one).variance;
    freedom_ += freedom;
  }
  pooled_ /= freedom_;
}

double DistanceLimits::of(std::size_t p, double tail) const {
  const Spread own = spread_of(draws_[p]);
  const auto M = static_cast<double>(draws_[p].size());
  const double variance = std::max(own.variance, pooled_) * (1 + 1 / M);
  return std::exp(own.mean + student_quantile(freedom_, tail) * std::sqrt(variance));
}

}  // namespace dsa::verify
