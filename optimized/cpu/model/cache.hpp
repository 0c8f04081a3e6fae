// optimized/cpu/model/cache.hpp — latent rows and index keys of one sequence, in every layer.
//
// A row a token: the latent [c_kv | k_rope] of every layer, and the key of every layer that runs an
// indexer (rows.hpp). Rows lie on pages; one block of memory holds a page of every layer. Growing
// adds a block and moves nothing.
#pragma once

#include <memory>
#include <variant>
#include <vector>

#include "optimized/engine/engine.hpp"
#include "optimized/shared/format.hpp"
#include "optimized/shared/rows.hpp"

namespace dsa::cpu {

/// Addresses of pages, by layer; no page of keys where a layer runs no indexer.
template <class Row>
struct CachePages {
  Index latent_width = 0, index_width = 0;
  std::vector<std::vector<Row*>> latent, index;
};

class Cache final : public SequenceCache {
 public:
  static constexpr Index page_rows = 256;

  Cache(const Config&, Format);

  /// Room for that many rows. Memory is taken for whole pages.
  void reserve(Index rows);

  /// The next n rows, which were written in every layer, now count.
  void commit(Index n);

  /// The first `rows` rows of a layer, for which there is room. Row: the format's element type.
  template <class Row>
  Pages<Row> latent(Index layer, Index rows) const {
    return pages(pool<Row>().latent[static_cast<std::size_t>(layer)], rows,
                 pool<Row>().latent_width);
  }
  template <class Row>
  Pages<Row> index_keys(Index layer, Index rows) const {
    return pages(pool<Row>().index[static_cast<std::size_t>(layer)], rows, pool<Row>().index_width);
  }

 private:
  template <class Row>
  const CachePages<Row>& pool() const {
    return std::get<CachePages<Row>>(pool_);
  }
  template <class Row>
  static Pages<Row> pages(const std::vector<Row*>& addresses, Index rows, Index width) {
    assert(rows <= static_cast<Index>(addresses.size()) * page_rows);
    return {addresses.data(), page_rows, rows, width};
  }
  template <class Row>
  void add_block(CachePages<Row>&);

  std::variant<CachePages<float>, CachePages<bf16>, CachePages<e4m3>> pool_;
  std::vector<bool> has_index_;  // by layer
  std::vector<std::shared_ptr<std::byte>> blocks_;
  Index block_bytes_;
};

/// Bytes of a cache of S tokens: whole pages.
Index cache_bytes(const Config&, Format, Index S);

}  // namespace dsa::cpu
