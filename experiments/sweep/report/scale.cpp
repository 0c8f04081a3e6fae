#include "experiments/sweep/report/scale.hpp"

#include <algorithm>
#include <cmath>

namespace dsa::sweep {

Scale::Scale(const std::vector<double>& values, bool log, double begin, double end)
    : log_(log), begin_(begin), end_(end) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  if (values.empty()) return;
  low_ = seen(*least), high_ = seen(*most);
  if (low_ == high_) low_ -= 0.5, high_ += 0.5;
  if (log_)
    log_ticks();
  else
    linear_ticks();
  for (const double tick : ticks_)
    low_ = std::min(low_, seen(tick)), high_ = std::max(high_, seen(tick));
}

double Scale::seen(double value) const { return log_ ? std::log10(value) : value; }

double Scale::at(double value) const {
  return begin_ + (seen(value) - low_) / (high_ - low_) * (end_ - begin_);
}

void Scale::linear_ticks() {
  const double rough = (high_ - low_) / 4, decade = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * decade;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * decade >= rough) step = factor * decade;
  const double first = std::floor(low_ / step), last = std::ceil(high_ / step);
  for (double i = first; i <= last; ++i) ticks_.push_back(i * step);
}

void Scale::log_ticks() {
  const double decades = high_ - low_;
  const std::vector<double> factors =
      decades > 3 ? std::vector<double>{1} : std::vector<double>{1, 2, 5};
  const double every = std::max(1.0, std::ceil(decades / 6));
  for (double d = std::floor(low_); d <= std::ceil(high_); d += every)
    for (const double factor : factors) ticks_.push_back(factor * std::pow(10, d));
  // From the last one that is not above the smallest value to the first not below the largest.
  const auto above = [this](double bound) {
    return std::find_if(ticks_.begin(), ticks_.end(),
                        [&](double tick) { return seen(tick) >= bound - 1e-9; });
  };
  if (const auto last = above(high_); last != ticks_.end()) ticks_.erase(last + 1, ticks_.end());
  if (const auto first = above(low_); first != ticks_.begin() && seen(*first) > low_ + 1e-9)
    ticks_.erase(ticks_.begin(), first - 1);
  else
    ticks_.erase(ticks_.begin(), first);
}

}  // namespace dsa::sweep
