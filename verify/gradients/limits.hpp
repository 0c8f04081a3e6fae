// verify/gradients/limits.hpp — how far a loss and its gradients may lie from a pass in double.
//
// Limits come from perturbed runs (verify/gradients/distance.hpp). Each parameter has two numbers,
// the relative distance and the largest error over the largest entry.
#pragma once

#include "verify/gradients/passes.hpp"

namespace dsa::verify {

class GradientLimits {
 public:
  /// Borrows `v` and `base`. v: the run without roundings; base: what it gave. tail: the
  /// probability of rejecting a right number.
  GradientLimits(const GradientVariant& v, const GradientPass& base, GradientDraws draws,
                 reference::Precision, double tail);
  GradientLimits(const GradientLimits&) = delete;
  GradientLimits& operator=(const GradientLimits&) = delete;

  /// The limit of |loss - base|.
  double of_loss() const;

  struct Measured {
    GradientDistance distance;
    double limit = 0;  // of distance.whole
    double worst_over_allowed = 0;
  };
  /// A stored gradient of parameter p, whose own is not zero.
  Measured measured(std::size_t p, const StoredValues&) const;

 private:
  double own_rounding() const;

  const GradientVariant& variant_;
  const GradientPass& base_;
  GradientDraws draws_;
  DistanceLimits whole_, element_;
  reference::Precision precision_;
  double tail_;
};

}  // namespace dsa::verify
