// optimized/ranks/collectives.hpp — what all ranks do together, made of exchanges.
#pragma once

#include <string>
#include <vector>

#include "core/tensor.hpp"
#include "optimized/ranks/communicator.hpp"

namespace dsa::ranks {

template <class T>
std::span<const std::byte> bytes_of(const T* data, Index n) {
  return std::as_bytes(std::span(data, static_cast<std::size_t>(n)));
}
template <class T>
std::span<std::byte> room_of(T* data, Index n) {
  return std::as_writable_bytes(std::span(data, static_cast<std::size_t>(n)));
}

/// Returns when all ranks have come.
void barrier(Communicator&);

/// The lists of all ranks, by rank; their lengths may differ.
std::vector<std::vector<double>> all_gather(Communicator&, const std::vector<double>& mine);

/// Pieces of memory by rank: this rank's are filled, the others' are when it returns.
void fill_pieces(Communicator&, std::vector<In> pieces);

/// Rank 0's text; that of the others is not looked at.
std::string text_of_first(Communicator&, const std::string&);

/// Error: this rank's text is not rank 0's. `what`: "the configuration".
void require_same(Communicator&, const std::string& what, const std::string& text);

using Numbers = std::vector<double>;

/// Of `count` items, rank r has done i = r, r + size, ... in this order: all of them, by i.
std::vector<Numbers> in_order(Communicator&, Index count, const std::vector<Numbers>& mine);

/// Calls f(i) for this rank's items of `count`, and returns the answers of all, by i.
template <class F>
std::vector<Numbers> divided(Communicator& ranks, Index count, F f) {
  std::vector<Numbers> mine;
  for (Index i = ranks.rank(); i < count; i += ranks.size()) mine.push_back(f(i));
  return in_order(ranks, count, mine);
}

}  // namespace dsa::ranks
