// experiments/sweep/report/scale.hpp — from numbers to places of a picture.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace dsa::sweep {

/// A linear or logarithmic axis from `begin` (of the smallest) to `end` (of the largest value).
/// The range grows to the ticks around the values.
class Scale {
 public:
  Scale(const std::vector<double>& values, bool log, double begin, double end);

  double at(double value) const;

  /// Round numbers: of 1, 2 and 5 times a power of ten, about five of them.
  const std::vector<double>& ticks() const { return ticks_; }

 private:
  double seen(double value) const;
  void linear_ticks();
  void log_ticks();

  bool log_;
  double begin_, end_, low_ = 0, high_ = 1;
  std::vector<double> ticks_;
};

}  // namespace dsa::sweep
