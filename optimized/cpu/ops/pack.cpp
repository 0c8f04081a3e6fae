#include "optimized/cpu/ops/pack.hpp"

#include <algorithm>

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
#pragma omp parallel
  for (const Packing& p : all) {
    const Index halves = halves_of(*p.to);
#pragma omp for schedule(static) nowait
    for (Index half = 0; half < halves; ++half) pack_one_half(cpu, p, half);
  }
}

}  // namespace dsa::cpu
