// tests/cpu/caches.hpp — caches in pages, rows of the three formats, and ranges of keys.
#pragma once

#include <algorithm>
#include <vector>

#include "optimized/shared/key_range.hpp"
#include "optimized/shared/pages.hpp"
#include "optimized/shared/rows.hpp"
#include "tests/cpu/helpers.hpp"

namespace dsa::test {

/// A copy of rows, cut into pages; what lies behind the last row on its page is 0xff: NaN in every
/// format.
template <class T>
class Paged {
 public:
  Paged(const Tensor<T, 2>& rows, Index page_rows)
      : page_rows_(page_rows), rows_(rows.shape()[0]), width_(rows.shape()[1]) {
    for (Index s = 0; s < rows_; ++s) {
      if (s % page_rows == 0) {
        pages_.emplace_back(static_cast<std::size_t>(page_rows * width_));
        std::memset(static_cast<void*>(pages_.back().data()), 0xff,
                    sizeof(T) * pages_.back().size());
      }
      std::copy_n(&rows(s, 0), width_, pages_.back().data() + s % page_rows * width_);
    }
    for (const auto& page : pages_) firsts_.push_back(page.data());
  }
  operator Pages<const T>() const { return {firsts_.data(), page_rows_, rows_, width_}; }

 private:
  Index page_rows_, rows_, width_;
  std::vector<std::vector<T>> pages_;
  std::vector<const T*> firsts_;
};

/// Rows as a cache keeps them, and the numbers that a kernel must see in them.
template <class T>
struct CacheRows {
  Tensor<T, 2> stored;
  Tensor<double, 2> seen;
};

inline e4m3 to_e4m3(double x) {
  e4m3 y;
  encode(Dtype::f8_e4m3, &x, 1, reinterpret_cast<std::byte*>(&y));
  return y;
}

/// Rows of R + P numbers; float or bf16.
template <class T>
CacheRows<T> rows_of(const Tensor<float, 2>& x) {
  CacheRows<T> rows{stored<T>(x), Tensor<double, 2>(x.shape())};
  for (Index i = 0; i < x.size(); ++i) rows.seen.data()[i] = number(rows.stored.data()[i]);
  return rows;
}

/// A tensor of ranges out of two lists.
class Ranges {
 public:
  Ranges(std::vector<std::int32_t> begin, std::vector<std::int32_t> end)
      : begin_(std::move(begin)), end_(std::move(end)) {}
  operator KeyRanges() const {
    const Index T = static_cast<Index>(begin_.size());
    return {{begin_.data(), {T}}, {end_.data(), {T}}};
  }
  std::int32_t begin(Index t) const { return begin_[static_cast<std::size_t>(t)]; }
  std::int32_t end(Index t) const { return end_[static_cast<std::size_t>(t)]; }

 private:
  std::vector<std::int32_t> begin_, end_;
};

/// Ranges of every kind: empty, one key, all keys, and random ones.
inline Ranges ranges(Index T, Index S, std::uint64_t seed) {
  std::vector<std::int32_t> begin, end;
  for (Index t = 0; t < T; ++t) {
    const auto at = [&](std::uint64_t i) {
      return static_cast<std::int32_t>(random_bits(seed, 2 * static_cast<std::uint64_t>(t) + i) %
                                       static_cast<std::uint64_t>(S + 1));
    };
    const std::int32_t all = static_cast<std::int32_t>(S), a = std::min(at(0), at(1)),
                       b = std::max(at(0), at(1));
    begin.push_back(t % 5 == 0 ? 0 : a);
    end.push_back(t % 5 == 0 ? all : t % 5 == 1 ? a : t % 5 == 2 ? std::min(a + 1, all) : b);
  }
  return {begin, end};
}

/// Query t sees the keys up to S - T + t.
inline Ranges causal(Index T, Index S) {
  std::vector<std::int32_t> begin(static_cast<std::size_t>(T), 0), end;
  for (Index t = 0; t < T; ++t) end.push_back(static_cast<std::int32_t>(S - T + t + 1));
  return {begin, end};
}

}  // namespace dsa::test
