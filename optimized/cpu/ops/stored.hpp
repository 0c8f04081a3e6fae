// optimized/cpu/ops/stored.hpp — the storage of an element type, and rows as kernels take them.
#pragma once

#include <algorithm>
#include <type_traits>

#include "core/dtype.hpp"
#include "optimized/cpu/kernels/storage.hpp"
#include "optimized/cpu/ops/visible.hpp"
#include "optimized/shared/pages.hpp"

namespace dsa::cpu {

template <class T>
constexpr Storage storage_of = std::is_same_v<T, float>  ? Storage::f32
                               : std::is_same_v<T, bf16> ? Storage::bf16
                                                         : Storage::e4m3;

template <class T>
const std::byte* bytes_at(const T* x) {
  return reinterpret_cast<const std::byte*>(x);
}

/// Addresses of rows [s, s + n).
template <class T>
void find_rows(const std::byte** rows, const Pages<const T>& pages, Index s, Index n) {
  for (Index i = 0; i < n; ++i) rows[i] = bytes_at(pages.row(s + i));
}

/// Ranges of T queries within S keys, or an Error.
inline void expect_visible(const Visible& visible, Index T, Index S) {
  expect_shape("begin", visible.begin, {T});
  expect_shape("end", visible.end, {T});
  for (Index t = 0; t < T; ++t)
    if (!(0 <= visible.begin(t) && visible.end(t) <= S))
      throw Error("query " + std::to_string(t) + " sees keys " + std::to_string(visible.begin(t)) +
                  " to " + std::to_string(visible.end(t)) + ", expected a range within 0 to " +
                  std::to_string(S));
}

/// The smallest range that holds those of the queries [first, first + n) that see more than `least`
/// keys; empty if there are none.
struct Range {
  Index begin = 0, end = 0;
};
inline Range range_of(const Visible& visible, Index first, Index n, Index least = 0) {
  Range all;
  for (Index t = first; t < first + n; ++t) {
    const Index begin = visible.begin(t), end = visible.end(t);
    if (end - begin <= least) continue;
    all = all.begin == all.end ? Range{begin, end}
                               : Range{std::min(all.begin, begin), std::max(all.end, end)};
  }
  return all;
}

}  // namespace dsa::cpu
