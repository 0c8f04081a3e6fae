// optimized/train/data/shuffle.hpp — an order of n things as a pure function.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"

namespace dsa::train {

/// The i-th of n things in the order of (seed, epoch): for fixed seed and epoch a permutation of
/// 0 ... n-1, with nothing stored.
///
/// A Feistel network of four rounds permutes the numbers of the next even number of bits; a number
/// beyond n is permuted again until it is one of n (cycle walking: Black and Rogaway, CT-RSA 2002).
Index shuffled(Index i, Index n, std::uint64_t seed, std::uint64_t epoch);

}  // namespace dsa::train
