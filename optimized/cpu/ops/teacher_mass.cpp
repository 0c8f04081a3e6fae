#include "optimized/cpu/ops/teacher_mass.hpp"

#include <limits>

#include "core/threads.hpp"
#include "optimized/cpu/kernels/block_softmax.hpp"

namespace dsa::cpu {

void expect_teacher(const Teacher& in, Index Q, Index T) {
  const Index N = in.q.shape[1], C = in.q.shape[2];
  expect_shape("the teacher's q", in.q, {Q, N, C});
  expect_shape("the teacher's k", in.k, {T, N, C});
  expect_shape("the teacher's lse", in.lse, {Q, N});
}

MassOfVisible::MassOfVisible(Cpu cpu, const Teacher& in, View<const std::int32_t, 1> begin,
                             Pieces& shared)
    : cpu_(cpu),
      in_(in),
      begin_(begin),
      T_(in.k.shape[0]),
      N_(in.q.shape[1]),
      C_(in.q.shape[2]),
      first_(T_ - in.q.shape[0]),
      panels_(shared.take<float>(panels_of(T_) * block_keys * N_ * C_)) {}

void MassOfVisible::pack() const {
  parallel_for((T_ + block_keys - 1) / block_keys, block_keys * N_ * C_ / 4, [&](Index block) {
    const Index s = block * block_keys;
    for (Index n = 0; n < N_; ++n)
      transpose_of[int(cpu_.tier)](panels_ + (s * N_ + n * block_keys) * C_, block_keys,
                                   in_.k.data + (s * N_ + n) * C_, N_ * C_,
                                   std::min(block_keys, T_ - s), C_);
  });
}

void MassOfVisible::operator()(const RowBlock& block, float* scratch) const {
  constexpr Index row = packed_row(block_keys);
  for (Index i = 0; i < block.count; ++i) std::fill_n(block.x + i * block.row, block.row, 0.0f);
  const Index first = begin_(block.t) / block_keys * block_keys, q = block.t - first_;
  for (Index s = first; s < block.end; s += block_keys) {
    const Index keys = std::min(block_keys, block.end - s);
    const SeenOfPanel seen(begin_, block, s);
    for (Index n = 0; n < N_; ++n) {
      multiply_block_of[int(cpu_.tier)]({scratch, row, in_.q.data + (q * N_ + n) * C_, N_ * C_,
                                         panels_ + (s * N_ + n * block_keys) * C_, block_keys,
                                         block.count, keys, C_});
      add_mass_block_of[int(cpu_.tier)](
          block.at(0, s), block.row,
          {scratch, row, block.count, keys, seen.bits, static_cast<float>(in_.scale)},
          in_.lse.data + q * N_ + n, N_);
    }
  }
}

MassOfChosen::MassOfChosen(Cpu cpu, const Teacher& in, Pieces& shared)
    : cpu_(cpu),
      in_(in),
      lay_(cpu, in.q.shape[1]),
      N_(in.q.shape[1]),
      C_(in.q.shape[2]),
      k_(shared.take<float>(in.k.shape[0] * C_ * lay_.M())) {}

MassOfChosen::Scratch::Scratch(Pieces& pieces, const MassOfChosen& mass, Index K)
    : q(pieces.take<float>(mass.C_ * mass.lay_.M())),
      dots(pieces.take<float>(K * mass.lay_.M())),
      lse(pieces.take<float>(mass.lay_.M())) {}

void MassOfChosen::operator()(float* u, Index q, const std::int32_t* ids, Index n,
                              const Scratch& at) const {
  const Index M = lay_.M();
  lay_.row(at.q, in_.q.data + q * N_ * C_, C_);
  std::fill_n(at.lse, M, std::numeric_limits<float>::infinity());
  std::copy_n(in_.lse.data + q * N_, N_, at.lse);
  gathered_dots_of[int(cpu_.tier)](at.dots, at.q, {k_, ids, n, C_, M});
  gathered_mass_of[int(cpu_.tier)](u, at.dots, at.lse, static_cast<float>(in_.scale), n, M);
}

}  // namespace dsa::cpu
