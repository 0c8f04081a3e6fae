#include "optimized/cpu/ops/pack.hpp"

#include <algorithm>

#include "core/threads.hpp"
#include "optimized/cpu/kernels/pack.hpp"

namespace dsa::cpu {
namespace {

/// Halves of the panels of a matrix, those without a row of its own included.
Index halves_of(const Matrix& w) {
  return (w.out() + linear_panel - 1) / linear_panel * (linear_panel / linear_half);
}

void pack_one_half(Cpu cpu, const Packing& p, Index half) {
  Matrix& to = *p.to;
  const bool is_bf16 = to.dtype() == Dtype::bf16;
  const Index first = half * linear_half,
              rows = std::clamp(to.out() - first, Index{0}, linear_half);
  auto* const words = reinterpret_cast<std::uint32_t*>(to.packed());
  pack_half_of[int(cpu.tier)]({.bf16 = is_bf16,
                               .w = p.w + first * p.row_stride,
                               .row_stride = p.row_stride,
                               .column_stride = p.column_stride,
                               .rows = rows,
                               .columns = to.in(),
                               .half = words + first * linear_words(is_bf16, to.in())});
}

}  // namespace

void pack(Cpu cpu, std::span<const Packing> all) {
  std::vector<Index> begin = {0};  // of each matrix's halves, all matrices in a row
  Index numbers = 0;
  for (const Packing& p : all) {
    begin.push_back(begin.back() + halves_of(*p.to));
    numbers += p.to->out() * p.to->in();
  }
  const Index halves = begin.back();
  parallel_for(halves, numbers / std::max<Index>(halves, 1) / 4, [&](Index half) {
    const auto next = std::upper_bound(begin.begin(), begin.end(), half);
    const auto matrix = static_cast<std::size_t>(next - begin.begin() - 1);
    pack_one_half(cpu, all[matrix], half - begin[matrix]);
  });
}

}  // namespace dsa::cpu
