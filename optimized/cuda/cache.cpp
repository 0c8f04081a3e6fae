#include "optimized/cuda/cache.cuh"

#include "optimized/cpu/cache.hpp"
#include "optimized/cpu/memory.hpp"

namespace dsa::cuda::DSA_PLACE {
namespace {

bool has_index(const Config& c, std::size_t layer) {
  return c.indexer && c.use_sparse_attention && c.indexer->computes[layer];
}

}  // namespace

template <class Row>
Cache<Row>::Cache(const Config& c)
    : latent_(std::size_t(c.num_hidden_layers)), index_(latent_.size()) {
  for (std::size_t l = 0; l < latent_.size(); ++l) {
    latent_[l] = column(cpu::latent_width<Row>(c));
    if (has_index(c, l)) index_[l] = column(cpu::index_width<Row>(c));
  }
}

template <class Row>
typename Cache<Row>::Column Cache<Row>::column(Index width) {
  const Column column{width, lists_++, block_bytes_};
  block_bytes_ += cpu::rounded_up(page_rows * width * Index{sizeof(Row)}, 256);
  return column;
}

template <class Row>
Pages<Row> Cache<Row>::rows_of(const Column& column) const {
  return {
      {list_.data() + column.list * pages_, {pages_}}, page_rows, pages_ * page_rows, column.width};
}

template <class Row>
void Cache<Row>::reserve(Index rows) {
  if (rows <= pages_ * page_rows) return;
  while (Index(blocks_.size()) * page_rows < rows) blocks_.emplace_back(block_bytes_);
  std::vector<Row*> list;
  const auto add = [&](const Column& column) {
    if (column.width == 0) return;
    for (const Buffer<std::byte>& block : blocks_)
      list.push_back(reinterpret_cast<Row*>(block.data() + column.first_byte));
  };
  for (std::size_t l = 0; l < latent_.size(); ++l) add(latent_[l]), add(index_[l]);
  list_ = Buffer<Row*>(list.data(), Index(list.size()));
  pages_ = Index(blocks_.size());
}

template <class Row>
void Cache<Row>::commit(Index n) {
  rows_ += n;
  require(rows_ <= pages_ * page_rows, "rows were committed to a cache that has no room for them");
}

template <class Row>
Index cache_bytes(const Config& c, Index S) {
  return cpu::rounded_up(S, Cache<Row>::page_rows) / Cache<Row>::page_rows *
         Cache<Row>(c).page_bytes();
}

template class Cache<float>;
template class Cache<bf16>;
template class Cache<e4m3>;
template Index cache_bytes<float>(const Config&, Index);
template Index cache_bytes<bf16>(const Config&, Index);
template Index cache_bytes<e4m3>(const Config&, Index);

}  // namespace dsa::cuda::DSA_PLACE
