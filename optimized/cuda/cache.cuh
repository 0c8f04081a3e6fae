// optimized/cuda/cache.cuh — what is kept of the tokens of one sequence, on the device.
//
// As optimized/cpu/cache.hpp: one block of memory holds a page of every layer, growing adds a block
// and moves no row. The lists of pages lie on the device, too; growing makes new ones.
#pragma once

#include <vector>

#include "optimized/cuda/buffer.cuh"
#include "optimized/engine.hpp"

namespace dsa::cuda::DSA_PLACE {

/// Row: float, bf16 or e4m3 (optimized/cpu/rows.hpp).
template <class Row>
class Cache final : public SequenceCache {
 public:
  static constexpr Index page_rows = 256;

  explicit Cache(const Config&);

  /// Room for that many rows. Memory is taken for whole pages.
  void reserve(Index rows);

  /// The next n rows, which were written in every layer, now count.
  void commit(Index n);

  /// All rows of a layer that there is room for: a pass reads those that its tokens see.
  Pages<Row> latent(Index layer) const { return rows_of(latent_[std::size_t(layer)]); }
  Pages<Row> index_keys(Index layer) const { return rows_of(index_[std::size_t(layer)]); }

  /// Where the lists of pages lie, and how many pages each has.
  const void* list() const { return list_.data(); }
  Index pages() const { return pages_; }

  Index page_bytes() const { return block_bytes_; }  // of a page of every layer

 private:
  /// What one layer keeps of one kind.
  struct Column {
    Index width = 0;       // of a row, in elements
    Index list = 0;        // its list is the list-th
    Index first_byte = 0;  // of its page, in a block
  };
  Column column(Index width);
  Pages<Row> rows_of(const Column&) const;

  std::vector<Column> latent_, index_;  // by layer
  Index lists_ = 0, block_bytes_ = 0;
  std::vector<Buffer<std::byte>> blocks_;
  Buffer<Row*> list_;  // (lists, pages)
  Index pages_ = 0;
};

/// What a cache of S tokens takes: whole pages.
template <class Row>
Index cache_bytes(const Config&, Index S);

}  // namespace dsa::cuda::DSA_PLACE
