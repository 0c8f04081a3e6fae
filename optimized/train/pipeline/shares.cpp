#include "optimized/train/pipeline/shares.hpp"

#include "core/random.hpp"

namespace dsa::train {

namespace {

/// The rank that has the first run.
int first_rank(const std::string& parameter, int of) {
  return static_cast<int>(seed_of(parameter, 0) % static_cast<std::uint64_t>(of));
}

/// Where run i of `of` begins.
Index begin_of(Index i, Index size, int of) {
  const Index blocks = (size + numbers_of_a_block - 1) / numbers_of_a_block;
  return std::min(blocks * i / of * numbers_of_a_block, size);
}

}  // namespace

Share share_of(const std::string& parameter, Index size, int rank, int of) {
  const int run = (rank - first_rank(parameter, of) + of) % of;
  return {begin_of(run, size, of), begin_of(run + 1, size, of)};
}

std::vector<Index> share_sizes(const std::string& parameter, Index size, int of) {
  std::vector<Index> sizes(static_cast<std::size_t>(of));
  const int first = first_rank(parameter, of);
  for (int run = 0; run < of; ++run)
    sizes[static_cast<std::size_t>((first + run) % of)] =
        begin_of(run + 1, size, of) - begin_of(run, size, of);
  return sizes;
}

ranks::Out gradients_of(const std::vector<Trained>& trained, int rank, int of) {
  ranks::Out pieces;
  for (const Trained& one : trained) {
    const Share share = share_of(one.name, one.gradient->size(), rank, of);
    pieces.push_back(ranks::bytes_of(one.gradient->data() + share.begin, share.size()));
  }
  return pieces;
}

ranks::In values_of(const std::vector<Trained>& trained, int rank, int of) {
  ranks::In pieces;
  for (const Trained& one : trained) {
    const Share share = share_of(one.name, one.value->size(), rank, of);
    pieces.push_back(ranks::room_of(one.value->data() + share.begin, share.size()));
  }
  return pieces;
}

}  // namespace dsa::train
