// optimized/train/pipeline/shares.hpp — the numbers of a parameter that a rank keeps moments of.
//
// Each parameter is cut into blocks of 4,096 numbers, and these into as many runs as there are
// ranks. Run i is of rank i + a number drawn from the name: so small parameters are spread. A share
// depends on name, size and ranks alone: moments stay where they are when another stage trains
// other parameters.
#pragma once

#include <algorithm>
#include <string>

#include "optimized/ranks/collectives.hpp"
#include "optimized/train/pipeline/trained.hpp"

namespace dsa::train {

inline constexpr Index numbers_of_a_block = 4096;

struct Share {
  Index begin = 0, end = 0;  // numbers
  Index size() const { return end - begin; }
};

Share share_of(const std::string& parameter, Index size, int rank, int of);

/// The sizes of all ranks' shares, by rank.
std::vector<Index> share_sizes(const std::string& parameter, Index size, int of);

/// Of the list, this rank's shares or another's: pieces of the values, or of the gradients.
ranks::Out gradients_of(const std::vector<Trained>&, int rank, int of);
ranks::In values_of(const std::vector<Trained>&, int rank, int of);

/// Bytes [from, to) of pieces that lie one after the other.
template <class Pieces>
Pieces slice(const Pieces& pieces, std::size_t from, std::size_t to) {
  Pieces part;
  std::size_t at = 0;
  for (const auto& piece : pieces) {
    const std::size_t begin = std::clamp(from, at, at + piece.size()),
                      end = std::clamp(to, at, at + piece.size());
    if (begin < end) part.push_back(piece.subspan(begin - at, end - begin));
    at += piece.size();
  }
  return part;
}

}  // namespace dsa::train
