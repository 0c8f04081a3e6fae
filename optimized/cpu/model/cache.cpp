#include "optimized/cpu/model/cache.hpp"

#include "optimized/shared/memory.hpp"

namespace dsa::cpu {
namespace {

std::vector<bool> layers_with_index(const Config& c) {
  if (c.indexer && c.use_sparse_attention) return c.indexer->computes;
  return std::vector<bool>(static_cast<std::size_t>(c.num_hidden_layers), false);
}

template <class Row>
Index page_bytes(Index width) {
  return rounded_up(Cache::page_rows * width * static_cast<Index>(sizeof(Row)), 64);
}

template <class Row>
Index block_bytes(const Config& c) {
  Index bytes = 0;
  for (const bool has_index : layers_with_index(c))
    bytes += page_bytes<Row>(latent_width<Row>(c)) +
             (has_index ? page_bytes<Row>(index_width<Row>(c)) : 0);
  return bytes;
}

Index block_bytes(const Config& c, Format format) {
  switch (format) {
    case Format::fp32:
      return block_bytes<float>(c);
    case Format::bf16:
      return block_bytes<bf16>(c);
    default:
      return block_bytes<e4m3>(c);
  }
}

}  // namespace

Cache::Cache(const Config& c, Format format)
    : has_index_(layers_with_index(c)), block_bytes_(block_bytes(c, format)) {
  if (format == Format::bf16) pool_ = CachePages<bf16>{};
  if (format == Format::fp8) pool_ = CachePages<e4m3>{};
  std::visit(
      [&]<class Row>(CachePages<Row>& pool) {
        pool.latent_width = dsa::latent_width<Row>(c);
        pool.index_width = dsa::index_width<Row>(c);
        pool.latent.resize(has_index_.size());
        pool.index.resize(has_index_.size());
      },
      pool_);
}

template <class Row>
void Cache::add_block(CachePages<Row>& pool) {
  blocks_.push_back(allocate(block_bytes_, "a page of the cache"));
  std::byte* at = blocks_.back().get();
  const auto add = [&](std::vector<Row*>& addresses, Index width) {
    addresses.push_back(reinterpret_cast<Row*>(at));
    at += page_bytes<Row>(width);
  };
  for (std::size_t l = 0; l < has_index_.size(); ++l) {
    add(pool.latent[l], pool.latent_width);
    if (has_index_[l]) add(pool.index[l], pool.index_width);
  }
}

void Cache::reserve(Index rows) {
  while (static_cast<Index>(blocks_.size()) * page_rows < rows)
    std::visit([&](auto& pool) { add_block(pool); }, pool_);
}

void Cache::commit(Index n) {
  rows_ += n;
  require(rows_ <= static_cast<Index>(blocks_.size()) * page_rows,
          "rows were committed to a cache that has no room for them");
}

Index cache_bytes(const Config& c, Format format, Index S) {
  return rounded_up(S, Cache::page_rows) / Cache::page_rows * block_bytes(c, format);
}

}  // namespace dsa::cpu
