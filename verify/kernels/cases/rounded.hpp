// verify/kernels/cases/rounded.hpp — numbers with what fp32 may have got wrong so far.
//
// The bound of a backward op is its formula, computed with these: a running error analysis
// (Higham, section 3.3). Every operation carries the errors of its operands through and adds one
// rounding. A fused operation rounds less.
#pragma once

#include <algorithm>

#include "verify/measure/bounds.hpp"

namespace dsa::verify::kernels {

struct Rounded {
  double x = 0, error = 0;

  Rounded() = default;
  Rounded(double exact) : x(exact) {}
  Rounded(double value, double wrong_by) : x(value), error(wrong_by) {}
  double size() const { return std::abs(x) + error; }  // at most
};

/// After so many roundings more.
inline Rounded rounded(Rounded a, Index times = 1) {
  return {a.x, a.error + gamma(times, unit_roundoff_fp32) * a.size() + smallest_normal_fp32};
}

/// A product whose own rounding is counted elsewhere.
inline Rounded times(Rounded a, Rounded b) {
  return {a.x * b.x, std::abs(a.x) * b.error + a.error * b.size()};
}

inline Rounded operator-(Rounded a) { return {-a.x, a.error}; }
inline Rounded operator+(Rounded a, Rounded b) { return rounded({a.x + b.x, a.error + b.error}); }
inline Rounded operator-(Rounded a, Rounded b) { return a + -b; }
inline Rounded operator*(Rounded a, Rounded b) { return rounded(times(a, b)); }

/// The divisor's error must be below it.
inline Rounded operator/(Rounded a, Rounded b) {
  const double x = a.x / b.x;
  return rounded({x, (a.error + std::abs(x) * b.error) / (std::abs(b.x) - b.error)});
}

/// e^a; `magnitude`: of a, or of what a is the difference of.
inline Rounded exp_of(Rounded a, double magnitude) {
  const double x = std::exp(a.x);
  return {x, x * exp_error(magnitude, a.error) + 2 * smallest_normal_fp32};
}

/// The error of a must be below it.
inline Rounded log_of(Rounded a) {
  const double x = std::log(a.x);
  return {
      x, -std::log1p(-a.error / a.x) + gamma(function_roundings, unit_roundoff_fp32) * std::abs(x)};
}

/// 1 / (1 + e^-z): exp's error through the share of e^-z in the sum. Where e^-z overflows, or its
/// argument is clamped to where it does not, the result is a number below the normal ones.
inline Rounded sigmoid_of(double z) {
  const double s = 1 / (1 + std::exp(-z));
  return {s, s * ((1 - s) * exp_error(std::abs(z), 0) + gamma(2, unit_roundoff_fp32)) +
                 2 * smallest_normal_fp32};
}

/// A sum of terms, or of products, in any order.
class Sum {
 public:
  Sum() = default;
  explicit Sum(Rounded start) { add(start); }
  void add(Rounded a) {
    x_ += a.x;
    error_ += a.error;
    size_ += a.size();
    ++n_;
  }
  void add(Rounded a, Rounded b) { add(times(a, b)); }
  Rounded total() const {
    return {x_, error_ + gamma(n_, unit_roundoff_fp32) * size_ +
                    2 * static_cast<double>(n_) * smallest_normal_fp32};
  }
  double error() const { return total().error; }

 private:
  double x_ = 0, error_ = 0, size_ = 0;
  Index n_ = 0;
};

}  // namespace dsa::verify::kernels
