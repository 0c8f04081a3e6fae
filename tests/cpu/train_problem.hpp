// tests/cpu/train_problem.hpp — a micro-batch of packed documents for the ops of training, and
// comparisons with a bound for every element.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/random.hpp"
#include "tests/cpu/helpers.hpp"
#include "verify/measure/bounds.hpp"

namespace dsa::test {

/// Documents of these lengths, one after the other.
struct Packed {
  std::vector<Index> lengths;

  Index rows() const {
    Index n = 0;
    for (Index length : lengths) n += length;
    return n;
  }
  Tensor<std::int32_t, 1> begin() const {
    Tensor<std::int32_t, 1> begin({rows()});
    Index at = 0;
    for (Index length : lengths) {
      for (Index i = 0; i < length; ++i) begin(at + i) = static_cast<std::int32_t>(at);
      at += length;
    }
    return begin;
  }
};

/// Up to K visible keys of every row, ascending, then -1: all where there are no more than K,
/// otherwise a set drawn at random. `none`: a row that chose nothing, or -1.
inline Tensor<std::int32_t, 2> draw_chosen(const Tensor<std::int32_t, 1>& begin, Index K,
                                           std::uint64_t seed, Index none = -1) {
  const Index T = begin.shape()[0];
  Tensor<std::int32_t, 2> chosen({T, K}, -1);
  for (Index t = 0; t < T; ++t) {
    if (t == none) continue;
    Index needed = std::min(K, t + 1 - begin(t)), n = 0;
    for (Index s = begin(t); s <= t && needed > 0; ++s) {
      const Index left = t + 1 - s;
      const auto place = static_cast<std::uint64_t>(t * T + s);
      // Of the keys that are left, each is as likely.
      if (uniform(seed, place) * static_cast<double>(left) < static_cast<double>(needed)) {
        chosen(t, n++) = static_cast<std::int32_t>(s);
        --needed;
      }
    }
  }
  return chosen;
}

/// Every visible key of every row, in (T, T).
inline Tensor<std::int32_t, 2> all_visible(const Tensor<std::int32_t, 1>& begin) {
  return draw_chosen(begin, begin.shape()[0], 0);
}

inline std::vector<Index> keys_of_row(const Tensor<std::int32_t, 2>& chosen, Index t) {
  std::vector<Index> keys;
  for (Index i = 0; i < chosen.shape()[1]; ++i)
    if (chosen(t, i) >= 0) keys.push_back(chosen(t, i));
  return keys;
}

template <class T, int Rank>
Tensor<T, Rank> as_numbers(const Tensor<float, Rank>& x) {
  Tensor<T, Rank> y(x.shape());
  std::copy(x.begin(), x.end(), y.begin());
  return y;
}

/// Elements that are not within their bound.
template <int Rank>
Index wrong(const Tensor<float, Rank>& got, const Tensor<double, Rank>& expected,
            const Tensor<double, Rank>& bound) {
  Index count = 0;
  for (Index i = 0; i < got.size(); ++i)
    count += !(std::abs(got.data()[i] - expected.data()[i]) <= bound.data()[i]);
  return count;
}

/// A bound that says nothing would be seen: the largest is at most `share` of the largest number.
template <int Rank>
bool is_tight(const Tensor<double, Rank>& expected, const Tensor<double, Rank>& bound,
              double share) {
  double largest = 0, most = 0;
  for (double x : expected) largest = std::max(largest, std::abs(x));
  for (double x : bound) most = std::max(most, x);
  return most <= share * largest;
}

inline double dot_of(const float* a, const float* b, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}
inline double size_of_dot(const float* a, const float* b, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += std::abs(static_cast<double>(a[i]) * b[i]);
  return sum;
}

}  // namespace dsa::test
