#include "optimized/ranks/collectives.hpp"

#include <algorithm>

namespace dsa::ranks {
namespace {

/// The same to all, a place for each.
void exchange_all(Communicator& ranks, const Out& mine, const std::vector<In>& places) {
  ranks.exchange(std::vector<Out>(places.size(), mine), places);
}

}  // namespace

std::vector<Numbers> all_gather(Communicator& ranks, const Numbers& mine) {
  const auto n = static_cast<std::size_t>(ranks.size());
  std::vector<std::uint64_t> sizes(n);
  const std::uint64_t own = mine.size();
  std::vector<In> places(n);
  for (std::size_t k = 0; k < n; ++k) places[k] = {room_of(&sizes[k], 1)};
  exchange_all(ranks, {bytes_of(&own, 1)}, places);
  std::vector<Numbers> all(n);
  for (std::size_t k = 0; k < n; ++k) {
    all[k].resize(sizes[k]);
    places[k] = {std::as_writable_bytes(std::span(all[k]))};
  }
  exchange_all(ranks, {std::as_bytes(std::span(mine))}, places);
  return all;
}

void barrier(Communicator& ranks) { all_gather(ranks, {}); }

void fill_pieces(Communicator& ranks, std::vector<In> pieces) {
  In& own = pieces[static_cast<std::size_t>(ranks.rank())];
  std::vector<Out> out(pieces.size(), Out(own.begin(), own.end()));
  out[static_cast<std::size_t>(ranks.rank())].clear();
  own.clear();
  ranks.exchange(out, pieces);
}

std::string text_of_first(Communicator& ranks, const std::string& text) {
  const auto n = static_cast<std::size_t>(ranks.size());
  const Numbers own = {static_cast<double>(text.size())};
  const auto size = static_cast<std::size_t>(all_gather(ranks, own)[0][0]);
  std::string received(size, '\0');
  std::vector<Out> out(n);
  std::vector<In> in(n);
  if (ranks.is_first()) std::fill(out.begin(), out.end(), Out{std::as_bytes(std::span(text))});
  in[0] = {std::as_writable_bytes(std::span(received))};
  ranks.exchange(out, in);
  return received;
}

void require_same(Communicator& ranks, const std::string& what, const std::string& text) {
  const bool is_same = text_of_first(ranks, text) == text;
  const auto all = all_gather(ranks, {is_same ? 1.0 : 0.0});
  for (std::size_t k = 0; k < all.size(); ++k)
    require(all[k][0] == 1, what + " of rank " + std::to_string(k) +
                                " differs from that of rank 0; give all ranks the same command "
                                "line and the same files");
}

std::vector<Numbers> in_order(Communicator& ranks, Index count, const std::vector<Numbers>& mine) {
  Numbers flat;
  for (const Numbers& one : mine) {
    flat.push_back(static_cast<double>(one.size()));
    flat.insert(flat.end(), one.begin(), one.end());
  }
  const std::vector<Numbers> all = all_gather(ranks, flat);
  std::vector<std::size_t> at(all.size(), 0);
  std::vector<Numbers> items;
  for (Index i = 0; i < count; ++i) {
    const auto k = static_cast<std::size_t>(i % ranks.size());
    const auto size = static_cast<std::ptrdiff_t>(all[k].at(at[k]));
    const auto begin = all[k].begin() + static_cast<std::ptrdiff_t>(at[k]) + 1;
    items.emplace_back(begin, begin + size);
    at[k] += static_cast<std::size_t>(size) + 1;
  }
  return items;
}

}  // namespace dsa::ranks
