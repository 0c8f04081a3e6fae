// reference/dual.hpp — a number and its derivative along one direction: the third Real.
//
//   (a, a') * (b, b') = (ab, a'b + ab'),   f(a, a') = (f(a), f'(a) a')
//
// The forward templates run on it unchanged, so a directional derivative of any loss costs one
// forward pass and shares no line with reference/*_backward: the two must agree.
// Decisions (top-k, max) compare the values only.
#pragma once

#include <cmath>
#include <compare>
#include <limits>
#include <type_traits>
#include <vector>

#include "core/weights.hpp"

namespace dsa::reference {

struct Dual {
  double value = 0, tangent = 0;

  Dual() = default;
  Dual(double v, double t) : value(v), tangent(t) {}
  template <class T>
  requires std::is_arithmetic_v<T> Dual(T v) : value(static_cast<double>(v)) {}
  explicit operator double() const { return value; }

  friend Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.tangent + b.tangent}; }
  friend Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.tangent - b.tangent}; }
  friend Dual operator*(Dual a, Dual b) {
    return {a.value * b.value, a.tangent * b.value + a.value * b.tangent};
  }
  friend Dual operator/(Dual a, Dual b) {
    const double ratio = a.value / b.value;
    return {ratio, (a.tangent - ratio * b.tangent) / b.value};
  }
  friend Dual operator-(Dual a) { return {-a.value, -a.tangent}; }
  Dual& operator+=(Dual b) { return *this = *this + b; }
  Dual& operator-=(Dual b) { return *this = *this - b; }
  Dual& operator*=(Dual b) { return *this = *this * b; }
  Dual& operator/=(Dual b) { return *this = *this / b; }
  friend bool operator==(Dual a, Dual b) { return a.value == b.value; }
  friend std::partial_ordering operator<=>(Dual a, Dual b) { return a.value <=> b.value; }
};

inline Dual exp(Dual x) {
  const double e = std::exp(x.value);
  return {e, e * x.tangent};
}
inline Dual log(Dual x) { return {std::log(x.value), x.tangent / x.value}; }
inline Dual sqrt(Dual x) {
  const double root = std::sqrt(x.value);
  return {root, x.tangent / (2 * root)};
}
inline Dual sin(Dual x) { return {std::sin(x.value), std::cos(x.value) * x.tangent}; }
inline Dual cos(Dual x) { return {std::cos(x.value), -std::sin(x.value) * x.tangent}; }
inline Dual pow(Dual x, Dual y) {
  const double power = std::pow(x.value, y.value);
  return {power, power * (y.tangent * std::log(x.value) + y.value * x.tangent / x.value)};
}
inline bool isnan(Dual x) { return std::isnan(x.value); }

/// x as a constant: what autograd calls detach. Other Reals carry no derivative to lose.
inline Dual detached(Dual x) { return {x.value, 0}; }
template <class Real>
requires std::is_floating_point_v<Real> Real detached(Real x) { return x; }

}  // namespace dsa::reference

template <>
struct std::numeric_limits<dsa::reference::Dual> : std::numeric_limits<double> {};

namespace dsa {

/// A parameter that is read as Dual lies in F64: its values, and its tangents right behind them.
template <>
void read_rows<reference::Dual>(const Parameter&, Index begin, Index end, reference::Dual* out);
template <>
std::vector<reference::Dual> read_all<reference::Dual>(const Parameter&);

}  // namespace dsa
