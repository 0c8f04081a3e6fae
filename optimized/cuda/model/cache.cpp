#include "optimized/cuda/model/cache.cuh"

#include "optimized/shared/memory.hpp"
#include "optimized/shared/rows.hpp"

namespace dsa::cuda::DSA_PLACE {
namespace {

bool has_index(const Config& c, std::size_t layer) {
  return c.indexer && c.use_sparse_attention && c.indexer->computes[layer];
}

}  // namespace

template <class Row>
CacheLayout<Row>::CacheLayout(const Config& c)
    : latent_(std::size_t(c.num_hidden_layers)), index_(latent_.size()) {
  for (std::size_t l = 0; l < latent_.size(); ++l) {
    latent_[l] = column(latent_width<Row>(c));
    if (has_index(c, l)) index_[l] = column(index_width<Row>(c));
  }
}

/// Begins at a multiple of 256 bytes.
template <class Row>
typename CacheLayout<Row>::Column CacheLayout<Row>::column(Index width) {
  const Column column{width, page_size_};
  page_size_ += rounded_up(cache_page_rows * width, 256 / Index{sizeof(Row)});
  return column;
}

template <class Row>
void Cache<Row>::reserve(Index rows) {
  while (Index(pages_.size()) * cache_page_rows < rows) pages_.emplace_back(page_size_);
}

template <class Row>
void Cache<Row>::commit(Index n) {
  rows_ += n;
  require(rows_ <= Index(pages_.size()) * cache_page_rows,
          "rows were committed to a cache that has no room for them");
}

template <class Row>
Index cache_bytes(const Config& c, Index S) {
  return rounded_up(S, cache_page_rows) / cache_page_rows * CacheLayout<Row>(c).page_size() *
         Index{sizeof(Row)};
}

template class CacheLayout<float>;
template class CacheLayout<bf16>;
template class CacheLayout<e4m3>;
template class Cache<float>;
template class Cache<bf16>;
template class Cache<e4m3>;
template Index cache_bytes<float>(const Config&, Index);
template Index cache_bytes<bf16>(const Config&, Index);
template Index cache_bytes<e4m3>(const Config&, Index);

}  // namespace dsa::cuda::DSA_PLACE
