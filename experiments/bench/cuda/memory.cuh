// experiments/bench/cuda/memory.cuh — inputs made on the device, for one problem.
#pragma once

#include <memory>
#include <vector>

#include "optimized/cuda/device/buffer.cuh"

namespace dsa::bench::DSA_PLACE {

using namespace cuda::DSA_PLACE;

/// Numbers uniform in [-1, 1), rounded to the type. T: float, bf16 or e4m3.
template <class T>
void fill(DeviceView<T, 1>, unsigned seed);
/// Rows of bytes as optimized/shared/rows.hpp has them: `before` e4m3, `scales` floats which are 1,
/// and bf16.
void fill_rows(DeviceView<e4m3, 2>, Index before, Index scales, unsigned seed);
/// (T, K): ascending, one key of every K-th part of the S keys of the query's sequence, whose first
/// key is S t / queries_per_sequence.
void choose(DeviceView<std::int32_t, 2> chosen, Index S, Index queries_per_sequence, unsigned seed);

/// Owns what it hands out.
class Memory {
 public:
  template <class T, int Rank>
  DeviceView<T, Rank> space(Shape<Rank> shape) {
    return keep(Buffer<T>(volume<Rank>(shape))).template view<Rank>(shape);
  }
  template <class T, int Rank>
  DeviceView<T, Rank> numbers(Shape<Rank> shape) {
    const DeviceView<T, Rank> x = space<T, Rank>(shape);
    fill<T>({x.data, {volume<Rank>(shape)}}, ++seed_);
    return x;
  }
  template <class T>
  DeviceView<T, 1> list(const std::vector<T>& values) {
    const auto n = static_cast<Index>(values.size());
    return keep(Buffer<T>(values.data(), n)).template view<1>({n});
  }
  DeviceView<std::int32_t, 2> keys(Index T, Index K, Index S, Index queries_per_sequence) {
    const auto chosen = space<std::int32_t, 2>({T, K});
    choose(chosen, S, queries_per_sequence, ++seed_);
    return chosen;
  }
  /// Rows (S, channels) in pages of 64, as served caches have them. e4m3 rows have `channels` with
  /// a scale for every 128, or one, and `behind` channels in bf16.
  template <class T>
  Pages<const T> rows(Index S, Index channels, Index behind) {
    if constexpr (std::is_same_v<T, e4m3>) {
      const Index scales = (channels + 127) / 128, width = channels + 4 * scales + 2 * behind;
      const auto x = space<e4m3, 2>({S, width});
      fill_rows(x, channels, scales, ++seed_);
      return paged<T>(x.data, S, width);
    } else {
      return paged<T>(numbers<T, 2>({S, channels + behind}).data, S, channels + behind);
    }
  }
  /// Rows [first, first + n) of a cache; `first` begins a page.
  template <class T>
  static Pages<const T> part(const Pages<const T>& all, Index first, Index n) {
    require(first % all.page_rows == 0, "a part of a cache begins with a page");
    const Index page = first / all.page_rows, count = (n + all.page_rows - 1) / all.page_rows;
    return {{all.pages.data + page, {count}}, all.page_rows, n, all.width};
  }

 private:
  static constexpr Index page_rows = 64;

  template <class T>
  Pages<const T> paged(const T* data, Index S, Index width) {
    std::vector<const T*> pages;
    for (Index s = 0; s < S; s += page_rows) pages.push_back(data + s * width);
    const auto table = list(pages);
    return {{table.data, {table.shape[0]}}, page_rows, S, width};
  }
  template <class T>
  Buffer<T>& keep(Buffer<T> buffer) {
    auto owned = std::make_shared<Buffer<T>>(std::move(buffer));
    owned_.push_back(owned);
    return *owned;
  }

  std::vector<std::shared_ptr<void>> owned_;
  unsigned seed_ = 0;
};

}  // namespace dsa::bench::DSA_PLACE
