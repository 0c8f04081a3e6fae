// tests/cpu/helpers.hpp — what the tests of the CPU backend share.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "core/dtype.hpp"
#include "core/random.hpp"
#include "optimized/cpu/ops/scratch.hpp"
#include "optimized/cpu/ops/tier.hpp"
#include "tests/threads.hpp"

namespace dsa::test {

template <int Rank>
Tensor<float, Rank> draw(Shape<Rank> shape, std::uint64_t seed) {
  Tensor<float, Rank> x(shape);
  for (Index i = 0; i < x.size(); ++i)
    x.data()[i] = static_cast<float>(gaussian(seed, static_cast<std::uint64_t>(i)));
  return x;
}

inline bf16 to_bf16(float x) {
  bf16 y;
  const double value = x;
  encode(Dtype::bf16, &value, 1, reinterpret_cast<std::byte*>(&y));
  return y;
}
inline double number(float x) { return x; }
inline double number(bf16 x) {
  double y;
  decode(Dtype::bf16, reinterpret_cast<const std::byte*>(&x), 1, &y);
  return y;
}

inline double number(e4m3 x) {
  double y;
  decode(Dtype::f8_e4m3, reinterpret_cast<const std::byte*>(&x), 1, &y);
  return y;
}

/// x as it is, or rounded to bf16.
template <class X, int Rank>
Tensor<X, Rank> stored(const Tensor<float, Rank>& x) {
  Tensor<X, Rank> y(x.shape());
  for (Index i = 0; i < x.size(); ++i)
    if constexpr (std::is_same_v<X, bf16>)
      y.data()[i] = to_bf16(x.data()[i]);
    else
      y.data()[i] = x.data()[i];
  return y;
}

template <class T, int Rank>
bool same_bits(const Tensor<T, Rank>& a, const Tensor<T, Rank>& b) {
  return a.shape() == b.shape() &&
         std::memcmp(a.data(), b.data(), sizeof(T) * static_cast<std::size_t>(a.size())) == 0;
}

/// Memory for a Scratch: `bytes` for every one of `threads`.
class ScratchMemory {
 public:
  explicit ScratchMemory(Index bytes, Index threads = dsa::threads())
      : bytes_((bytes + 63) / 64 * 64), lines_(static_cast<std::size_t>(bytes_ / 64 * threads)) {}
  operator cpu::Scratch() { return {lines_.data()->bytes, bytes_}; }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  Index bytes_;
  std::vector<Line> lines_;
};

}  // namespace dsa::test
