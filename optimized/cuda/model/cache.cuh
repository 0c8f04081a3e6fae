// optimized/cuda/model/cache.cuh — latent rows and index keys of one sequence, on the device.
//
// As optimized/cpu/model/cache.hpp: a page is one block of memory that holds 256 rows of every
// layer; growing adds a page and moves no row. The rows of a layer lie in the same place of every
// page, so a pass reads those of all its feeds through one list of pages.
#pragma once

#include <vector>

#include "optimized/cuda/device/buffer.cuh"
#include "optimized/engine/engine.hpp"

namespace dsa::cuda::DSA_PLACE {

inline constexpr Index cache_page_rows = 256;

/// The layout of a page. Row: float, bf16 or e4m3 (optimized/shared/rows.hpp).
template <class Row>
class CacheLayout {
 public:
  explicit CacheLayout(const Config&);

  /// The rows of a layer in a list of pages that lies on the device.
  Pages<Row> latent(Index layer, DeviceView<Row* const, 1> pages) const {
    return rows_of(latent_[std::size_t(layer)], pages);
  }
  Pages<Row> index_keys(Index layer, DeviceView<Row* const, 1> pages) const {
    return rows_of(index_[std::size_t(layer)], pages);
  }

  Index page_size() const { return page_size_; }  // elements, of all layers

 private:
  /// The rows of one layer, latent or index keys.
  struct Column {
    Index width = 0;  // of a row, in elements
    Index first = 0;  // element of the page
  };
  Column column(Index width);
  Pages<Row> rows_of(const Column& column, DeviceView<Row* const, 1> pages) const {
    const Index rows = pages.shape[0] * cache_page_rows;
    return {pages, cache_page_rows, rows, column.width, column.first};
  }

  std::vector<Column> latent_, index_;  // by layer
  Index page_size_ = 0;
};

template <class Row>
class Cache final : public SequenceCache {
 public:
  explicit Cache(const CacheLayout<Row>& layout) : page_size_(layout.page_size()) {}

  /// Room for that many rows. Memory is taken for whole pages.
  void reserve(Index rows);

  /// The next n rows, which were written in every layer, now count.
  void commit(Index n);

  const std::vector<Buffer<Row>>& pages() const { return pages_; }

 private:
  Index page_size_;
  std::vector<Buffer<Row>> pages_;
};

/// Bytes of a cache of S tokens: whole pages.
template <class Row>
Index cache_bytes(const Config&, Index S);

}  // namespace dsa::cuda::DSA_PLACE
