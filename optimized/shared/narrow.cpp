#include "optimized/shared/narrow.hpp"

#include <bit>

#include "core/threads.hpp"

namespace dsa {

void narrow_to_bf16(std::span<bf16> y, std::span<const float> x) {
  require(y.size() == x.size(), "narrow_to_bf16: y and x differ in size");
  const auto n = static_cast<Index>(x.size());
  parallel_for(n, 1, [&](Index i) {
    const auto bits = std::bit_cast<std::uint32_t>(x[static_cast<std::size_t>(i)]);
    const std::uint32_t is_odd = bits >> 16 & 1;
    y[static_cast<std::size_t>(i)].bits =
        static_cast<std::uint16_t>((bits + 0x7fff + is_odd) >> 16);
  });
}

}  // namespace dsa
