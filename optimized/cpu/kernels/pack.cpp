#include "optimized/cpu/kernels/pack.hpp"

#include "optimized/cpu/kernels/native.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

constexpr Index lanes = linear_half;

/// w as words of one float.
struct OneFloat {
  static constexpr Index channels = 1;
  static std::uint32_t word(const float* w, Index, Index) {
    return __builtin_bit_cast(std::uint32_t, *w);
  }
};

/// w as words of two bf16; a second column that is missing is 0.
struct TwoBf16 {
  static constexpr Index channels = 2;
  static std::uint32_t word(const float* w, Index column_stride, Index left) {
    const std::uint32_t low = narrow(*w), high = left > 1 ? narrow(w[column_stride]) : 0;
    return low | high << 16;
  }
};

template <class Format, bool rows_side_by_side>
void pack(const PackHalf& p) {
  const Index words = linear_words(Format::channels == 2, p.columns);
  const Index row_stride = rows_side_by_side ? 1 : p.row_stride,
              column_stride = rows_side_by_side ? p.column_stride : 1;
  const Index full = (p.columns + Format::channels - 1) / Format::channels;
  for (Index i = 0; i < full; ++i) {
    const Index column = i * Format::channels;
    const float* const w = p.w + column * column_stride;
    std::uint32_t* const to = p.half + i * lanes;
    for (Index r = 0; r < p.rows; ++r)
      to[r] = Format::word(w + r * row_stride, column_stride, p.columns - column);
    for (Index r = p.rows; r < lanes; ++r) to[r] = 0;
  }
  std::memset(p.half + full * lanes, 0, static_cast<std::size_t>(4 * lanes * (words - full)));
}

}  // namespace

void pack_half(const PackHalf& p) {
  if (p.bf16)
    p.row_stride == 1 ? pack<TwoBf16, true>(p) : pack<TwoBf16, false>(p);
  else
    p.row_stride == 1 ? pack<OneFloat, true>(p) : pack<OneFloat, false>(p);
}

}  // namespace dsa::cpu::DSA_TIER
