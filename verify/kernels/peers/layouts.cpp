#include "verify/kernels/peers/layouts.hpp"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/safetensors.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

Index pages_of(Index S) { return (S + layout_page - 1) / layout_page; }

void expect_blocks(const std::vector<Index>& blocks, Index S) {
  require(static_cast<Index>(blocks.size()) == pages_of(S),
          "a table of " + std::to_string(blocks.size()) + " blocks, expected " +
              std::to_string(pages_of(S)) + " for " + std::to_string(S) + " rows");
}

/// Calls `copy` with the place of every part of every row, among the rows and in the cache, and its
/// bytes. The last `behind` bytes of a page's rows lie behind all that comes before them.
template <class F>
void for_each_part(const std::vector<Index>& blocks, Index S, Index width, Index behind, F copy) {
  const Index before = width - behind, page_bytes = layout_page * width;
  for (Index s = 0; s < S; ++s) {
    const Index page = blocks.at(static_cast<std::size_t>(s / layout_page)) * page_bytes;
    const Index row = s % layout_page;
    copy(s * width, page + row * before, before);
    if (behind > 0) copy(s * width + before, page + layout_page * before + row * behind, behind);
  }
}

Array cache_of(const Array& rows, const std::vector<Index>& blocks, Index behind) {
  require(rows.dtype() == Dtype::u8 && rows.shape().size() == 2,
          "rows of a cache are U8 (S, bytes), not " + shape_text(rows.shape()));
  const Index S = rows.shape()[0], width = rows.shape()[1];
  expect_blocks(blocks, S);
  Array cache(Dtype::u8, {static_cast<Index>(blocks.size()), layout_page, 1, width});
  for_each_part(blocks, S, width, behind, [&](Index in_rows, Index in_cache, Index bytes) {
    std::memcpy(cache.bytes().data() + in_cache, rows.bytes().data() + in_rows,
                static_cast<std::size_t>(bytes));
  });
  return cache;
}

Array rows_of(const Array& cache, const std::vector<Index>& blocks, Index S, Index behind) {
  expect_blocks(blocks, S);
  require(cache.dtype() == Dtype::u8 && cache.shape().size() == 4 &&
              cache.shape()[0] >= static_cast<Index>(blocks.size()) &&
              cache.shape()[1] == layout_page && cache.shape()[2] == 1,
          "a cache is U8 (blocks, 64, 1, bytes), not " + shape_text(cache.shape()));
  const Index width = cache.shape()[3];
  Array rows(Dtype::u8, {S, width});
  for_each_part(blocks, S, width, behind, [&](Index in_rows, Index in_cache, Index bytes) {
    std::memcpy(rows.bytes().data() + in_rows, cache.bytes().data() + in_cache,
                static_cast<std::size_t>(bytes));
  });
  return rows;
}

}  // namespace

const LseConvention flashmla_lse{1, inf};
const LseConvention tilelang_lse{0.6931471805599453, -inf};

std::vector<Index> blocks_of(Index S) {
  const Index pages = pages_of(S);
  std::vector<Index> blocks;
  for (Index page = 0; page < pages; ++page)
    blocks.push_back(page % 2 == 0 ? pages - 1 - page / 2 : page / 2);
  return blocks;
}

Array flashmla_cache(const Array& rows, const std::vector<Index>& blocks) {
  return cache_of(rows, blocks, 0);
}
Array flashmla_rows(const Array& cache, const std::vector<Index>& blocks, Index S) {
  return rows_of(cache, blocks, S, 0);
}
Array deepgemm_cache(const Array& rows, const std::vector<Index>& blocks) {
  return cache_of(rows, blocks, sizeof(float));
}
Array deepgemm_rows(const Array& cache, const std::vector<Index>& blocks, Index S) {
  return rows_of(cache, blocks, S, sizeof(float));
}

Array flashmla_indices(const Array& chosen, const std::vector<Index>& blocks, Index multiple) {
  const View<const std::int32_t, 2> keys = chosen.as<std::int32_t, 2>();
  const Index T = keys.shape[0], K = keys.shape[1];
  Array indices(Dtype::i32, {T, (K + multiple - 1) / multiple * multiple});
  const View<std::int32_t, 2> to = indices.as<std::int32_t, 2>();
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < to.shape[1]; ++i) {
      const Index s = i < K ? keys(t, i) : -1;
      const bool moves = s >= 0 && !blocks.empty();
      to(t, i) = static_cast<std::int32_t>(
          moves
              ? blocks.at(static_cast<std::size_t>(s / layout_page)) * layout_page + s % layout_page
              : s);
    }
  return indices;
}

Array flashmla_chosen(const Array& indices, const std::vector<Index>& blocks, Index K) {
  const View<const std::int32_t, 2> from = indices.as<std::int32_t, 2>();
  std::vector<Index> page_at(blocks.size());
  for (std::size_t page = 0; page < blocks.size(); ++page)
    page_at.at(static_cast<std::size_t>(blocks[page])) = static_cast<Index>(page);
  Array chosen(Dtype::i32, {from.shape[0], K});
  const View<std::int32_t, 2> keys = chosen.as<std::int32_t, 2>();
  for (Index t = 0; t < from.shape[0]; ++t)
    for (Index i = 0; i < K; ++i) {
      const Index s = from(t, i);
      const bool moves = s >= 0 && !blocks.empty();
      keys(t, i) = static_cast<std::int32_t>(
          moves ? page_at.at(static_cast<std::size_t>(s / layout_page)) * layout_page +
                      s % layout_page
                : s);
    }
  return chosen;
}

double lse_of(double theirs, const LseConvention& convention) {
  return theirs == convention.empty ? -inf : theirs * convention.base_in_nats;
}

double lse_as(double ours, const LseConvention& convention) {
  return ours == -inf ? convention.empty : ours / convention.base_in_nats;
}

}  // namespace dsa::verify::kernels
