// optimized/cpu/ops/stored.hpp — elements and rows in the form that kernels take them.
#pragma once

#include <type_traits>

#include "core/dtype.hpp"
#include "optimized/cpu/kernels/row_out.hpp"
#include "optimized/cpu/kernels/storage.hpp"
#include "optimized/shared/key_range.hpp"
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

inline RowOut row_out(float* y) { return {.f32 = y}; }
inline RowOut row_out(bf16* y) { return {.bf16 = &y->bits}; }

/// Addresses of rows [s, s + n).
template <class T>
void find_rows(const std::byte** rows, const Pages<const T>& pages, Index s, Index n) {
  for (Index i = 0; i < n; ++i) rows[i] = bytes_at(pages.row(s + i));
}

/// Error: a range of one of T queries leaves the S keys.
inline void expect_visible(const KeyRanges& visible, Index T, Index S) {
  expect_shape("begin", visible.begin, {T});
  expect_shape("end", visible.end, {T});
  for (Index t = 0; t < T; ++t)
    if (!(0 <= visible.begin(t) && visible.end(t) <= S))
      throw Error("query " + std::to_string(t) + " sees keys " + std::to_string(visible.begin(t)) +
                  " to " + std::to_string(visible.end(t)) + ", expected a range within 0 to " +
                  std::to_string(S));
}

/// The smallest range that holds those of the queries [first, first + n) that see more than `least`
/// keys.
inline KeyRange range_of(const KeyRanges& visible, Index first, Index n, Index least = 0) {
  KeyRange all;
  for (Index t = first; t < first + n; ++t)
    if (visible[t].size() > least) all = joined(all, visible[t]);
  return all;
}

}  // namespace dsa::cpu
