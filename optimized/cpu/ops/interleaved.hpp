// optimized/cpu/ops/interleaved.hpp — (T, N, C) as rows (C, M): the heads of a channel side by side
// (kernels/gathered_heads.hpp).
#pragma once

#include "core/threads.hpp"
#include "optimized/cpu/kernels/block_products.hpp"
#include "optimized/cpu/kernels/gathered_heads.hpp"
#include "optimized/shared/key_range.hpp"
#include "optimized/shared/memory.hpp"

namespace dsa::cpu {

class Interleaved {
 public:
  Interleaved(Cpu cpu, Index N)
      : N_(N), M_(rounded_up(N, lanes_of(cpu.tier))), transpose_(transpose_of[int(cpu.tier)]) {}

  Index M() const { return M_; }

  void row(float* to, const float* from, Index C) const { transpose_(to, M_, from, C, N_, C); }
  void row_back(float* to, const float* from, Index C) const { transpose_(to, C, from, M_, C, N_); }
  void rows(float* to, View<const float, 3> x) const {
    const Index T = x.shape[0], C = x.shape[2];
    parallel_for(T, N_ * C / 4, [&](Index t) { row(to + t * C * M_, x.data + t * N_ * C, C); });
  }
  void rows_back(View<float, 3> x, const float* from, KeyRange rows) const {
    const Index C = x.shape[2];
    parallel_for(rows.size(), N_ * C / 4, [&](Index i) {
      const Index t = rows.begin + i;
      row_back(x.data + t * N_ * C, from + t * C * M_, C);
    });
  }

 private:
  Index N_, M_;
  Transpose* transpose_;
};

/// How many keys query q, that of row t, chose. Error: they are not visible keys in ascending
/// order, then -1.
inline Index count_chosen(View<const std::int32_t, 2> chosen, Index q, Index t, Index begin) {
  const Index K = chosen.shape[1];
  const std::int32_t* const keys = chosen.data + q * K;
  Index n = 0, least = begin;
  for (; n < K && least <= keys[n] && keys[n] <= t; ++n) least = keys[n] + 1;
  for (Index i = n; i < K; ++i)
    if (keys[i] != -1)
      throw Error("row " + std::to_string(t) + " chose key " + std::to_string(keys[i]) +
                  ", expected -1, or one of " + std::to_string(least) + " to " + std::to_string(t) +
                  ": visible keys in ascending order, then -1");
  return n;
}

}  // namespace dsa::cpu
