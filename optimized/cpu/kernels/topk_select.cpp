#include "optimized/cpu/kernels/topk_select.hpp"

#include "optimized/cpu/kernels/native.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

/// All bits but the sign of a negative number are inverted. Adding 0 turns -0 into +0.
Integers key_of(Vector scores) {
  const Integers bits = as_integers(scores + 0.0f);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

/// The float of a key; key_of turned around.
float number_of(std::int32_t key) {
  return __builtin_bit_cast(float, key ^ ((key >> 31) & 0x7fffffff));
}

std::int32_t largest_of(const std::int32_t* keys, Index n) {
  Integers largest = fill(lowest_key);
  for (Index i = 0; i < n; i += width) {
    const Integers v = integers_at(keys + i);
    largest = v > largest ? v : largest;
  }
  std::int32_t all = lowest_key;
  for (int i = 0; i < width; ++i) all = largest[i] > all ? largest[i] : all;
  return all;
}

/// How many keys are above `key`.
Index count_above(const std::int32_t* keys, Index n, std::int32_t key) {
  Integers count{};
#pragma GCC unroll 4
  for (Index i = 0; i < n; i += width) count -= integers_at(keys + i) > key;
  std::int32_t sum = 0;
  for (int i = 0; i < width; ++i) sum += count[i];
  return sum;
}

/// A key that exactly K of n >= K keys reach, or else (ties) the K-th largest key. At least K keys
/// reach `least`; numbers up to a whole vector behind them are lowest_key. The bits of its distance
/// from `least` are found from the highest down.
std::int32_t cut_of(const std::int32_t* keys, Index n, Index K, std::int32_t least) {
  const std::int64_t largest = largest_of(keys, n);
  std::int64_t cut = least;
  for (int bit = 63 - __builtin_clzll(static_cast<unsigned long long>(largest - least) | 1);
       bit >= 0; --bit) {
    const std::int64_t higher = cut + (std::int64_t{1} << bit);
    if (higher > largest) continue;
    const Index count = count_above(keys, n, static_cast<std::int32_t>(higher - 1));
    if (count >= K) cut = higher;
    if (count == K) break;
  }
  return static_cast<std::int32_t>(cut);
}

/// A threshold for n >= 8 K scores, from the largest of each of about 2 K groups of them: K groups,
/// and so K scores, reach the K-th largest of those. `largest` has room for them.
std::int32_t first_threshold(std::int32_t* largest, const float* scores, Index n, Index K) {
  const Index vectors = (2 * K + width - 1) / width, each = n / width / vectors;
  for (Index i = 0; i < vectors; ++i) {
    Vector group = fill(-__builtin_inff());
    for (Index j = 0; j < each; ++j)
      group = larger(vector_at(scores + (i * each + j) * width), group);
    put(largest + i * width, key_of(group));
  }
  put(largest + vectors * width, fill(lowest_key));
  const std::int32_t reached = cut_of(largest, vectors * width, K, lowest_key);
  // Strictly below; -1 is no key: it would be that of -0.
  return reached == 0 ? -2 : reached > lowest_key ? reached - 1 : lowest_key;
}

/// The lowest n bits that are set.
unsigned lowest_set(unsigned bits, Index n) {
  unsigned kept = 0;
  for (; n > 0 && bits != 0; --n) {
    kept |= bits & -bits;
    bits &= bits - 1;
  }
  return kept;
}

}  // namespace

void keep_largest(Candidates& c, Index K) {
  if (c.count <= K) return;
  // Copies: for all the compiler knows, a key written may be a member of c.
  std::int32_t *const keys = c.keys, *const indices = c.indices;
  const Index count = c.count;
  put(keys + count, fill(lowest_key));
  const std::int32_t cut = cut_of(keys, count, K, c.threshold);
  Index ties = K - count_above(keys, count, cut);
  Index kept = 0;
  for (Index i = 0; i < count; i += width) {
    const Integers key = integers_at(keys + i), index = integers_at(indices + i);
    unsigned equal = bits_equal(key, fill(cut));
    if (__builtin_popcount(equal) > ties) equal = lowest_set(equal, ties);
    ties -= __builtin_popcount(equal);
    const unsigned stay = bits_greater(key, fill(cut)) | equal;
    put_some(keys + kept, key, stay);
    kept += put_some(indices + kept, index, stay);
  }
  c.count = K;
  c.threshold = cut;
}

std::int64_t offer_scores(Candidates& c, const float* scores, Index n, std::int32_t first,
                          Index K) {
  constexpr Index run = 4;  // vectors: most runs hold no candidate and cost one branch
  Integers lane;
  for (int i = 0; i < width; ++i) lane[i] = i;
  const Index full = candidate_capacity(K) - (run + 1) * width;
  std::int32_t *const keys = c.keys, *const indices = c.indices;
  Index count = c.count;
  if (count == 0 && c.threshold == lowest_key && n >= 8 * K)
    c.threshold = first_threshold(keys, scores, n, K);
  Vector threshold = fill(number_of(c.threshold));
  for (Index i = 0; i < n; i += run * width) {
    float copy[run * width];
    const float* x = scores + i;
    if (n - i < run * width) {
      for (Index j = 0; j < run * width; ++j) copy[j] = j < n - i ? x[j] : -__builtin_inff();
      x = copy;
    }
    unsigned above[run], any = 0;
    for (Index j = 0; j < run; ++j) {
      above[j] = bits_not_at_most(vector_at(x + j * width), threshold);
      any |= above[j];
    }
    if (any == 0) continue;
    for (Index j = 0; j < run; ++j) {
      const Vector v = vector_at(x + j * width);
      const unsigned nan = bits_not_at_most(v, fill(__builtin_inff()));
      if (nan != 0) return i + j * width + __builtin_ctz(nan);
      put_some(keys + count, key_of(v), above[j]);
      count += put_some(indices + count, lane + (first + static_cast<std::int32_t>(i + j * width)),
                        above[j]);
    }
    if (count <= full) continue;
    c.count = count;
    keep_largest(c, K);
    count = c.count;
    threshold = fill(number_of(c.threshold));
  }
  c.count = count;
  return -1;
}

}  // namespace dsa::cpu::DSA_TIER
