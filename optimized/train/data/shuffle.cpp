#include "optimized/train/data/shuffle.hpp"

#include <bit>

#include "core/check.hpp"
#include "core/random.hpp"

namespace dsa::train {

Index shuffled(Index i, Index n, std::uint64_t seed, std::uint64_t epoch) {
  require(0 <= i && i < n,
          "shuffled: there is no thing " + std::to_string(i) + " among " + std::to_string(n));
  const auto count = static_cast<std::uint64_t>(n);
  const int half = (std::bit_width(count - 1) + 1) / 2;  // bits of either side
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  const std::uint64_t key = random_bits(seed, epoch);
  auto x = static_cast<std::uint64_t>(i);
  do {
    std::uint64_t left = x >> half, right = x & mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::uint64_t mixed = left ^ (random_bits(key + round, right) & mask);
      left = right;
      right = mixed;
    }
    x = (left << half) | right;
  } while (x >= count);
  return static_cast<Index>(x);
}

}  // namespace dsa::train
