// optimized/cpu/ops/teacher_mass.hpp — u, the attention that keys get from all heads: what the
// indexer learns from.
//
//   u[t,s] = sum_n exp( scale q[t,n,:] . k[s,n,:] - lse[t,n] )
#pragma once

#include "optimized/cpu/ops/index_blocks.hpp"
#include "optimized/cpu/ops/index_kl.hpp"
#include "optimized/cpu/ops/interleaved.hpp"

namespace dsa::cpu {

void expect_teacher(const Teacher&, Index Q, Index T);

/// Of every visible key of a block of queries.
class MassOfVisible {
 public:
  MassOfVisible(Cpu, const Teacher&, View<const std::int32_t, 1> begin, Pieces& shared);
  void pack() const;
  static float* scratch(Pieces& pieces) {
    return pieces.take<float>(row_queries * packed_row(block_keys));
  }
  /// Rows of the block, 0 where unseen.
  void operator()(const RowBlock&, float* scratch) const;

 private:
  Cpu cpu_;
  Teacher in_;
  View<const std::int32_t, 1> begin_;
  Index T_, N_, C_, first_;
  float* panels_;  // (panels, N, B+P, 64)
};

/// Of the keys that one query chose; q: its number.
class MassOfChosen {
 public:
  MassOfChosen(Cpu, const Teacher&, Pieces& shared);
  void pack() const { lay_.rows(k_, in_.k); }
  struct Scratch {
    float *q, *dots, *lse;
    Scratch(Pieces&, const MassOfChosen&, Index K);
  };
  void operator()(float* u, Index q, const std::int32_t* ids, Index n, const Scratch&) const;

 private:
  Cpu cpu_;
  Teacher in_;
  Interleaved lay_;
  Index N_, C_;
  float* k_;  // (T, B+P, M)
};

}  // namespace dsa::cpu
