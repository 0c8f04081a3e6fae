// verify/gradients/distance.hpp — how far two gradients lie apart, and how far they may.
#pragma once

#include <vector>

#include "core/tensor.hpp"

namespace dsa::verify {

using Values = std::vector<double>;

double norm(const Values&);
double cosine(const Values&, const Values&);

/// Relative distance |got - want| / |want|, and the largest error over the largest entry.
struct GradientDistance {
  double whole = 0, element = 0;
  Index at = -1;  // of the largest error; NaN is the largest
};
GradientDistance distance(const Values& got, const Values& want);

/// Limits of one kind of distance, from draws[parameter][run]: Student's t on their logarithms. A
/// few runs say little of one parameter's spread, and much of the spread of all: the larger of both
/// is taken, with the freedom of all.
class DistanceLimits {
 public:
  explicit DistanceLimits(const std::vector<std::vector<double>>& draws);
  double of(std::size_t parameter, double tail) const;

 private:
  const std::vector<std::vector<double>>& draws_;
  double pooled_ = 0, freedom_ = 0;
};

}  // namespace dsa::verify
