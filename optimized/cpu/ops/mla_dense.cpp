#include "optimized/cpu/ops/mla_dense.hpp"

#include "optimized/cpu/ops/latent_attention.hpp"

namespace dsa::cpu {
namespace {

constexpr Index block = 8;  // queries that share the rows of a chunk

/// Every key that a query sees.
template <class Row>
class VisibleKeys {
 public:
  VisibleKeys(KeyRanges visible, Pages<const Row> kv) : visible_(visible), kv_(kv) {}

  void list(Index, Pieces&) {}
  KeyRange range(Index t) const { return visible_[t]; }
  Index most(Index t) const { return visible_[t].size(); }
  const std::byte* row(Index s) const { return bytes_at(kv_.row(s)); }

 private:
  KeyRanges visible_;
  Pages<const Row> kv_;
};

}  // namespace

template <class Q, class Row>
void mla_dense(Cpu cpu, MlaOut y, const MlaIn<Q, Row>& in, KeyRanges visible, Scratch scratch) {
  expect_latent(y, in);
  expect_visible(visible, in.q.shape[0], in.kv.rows);
  LatentAttention<Q, Row, VisibleKeys<Row>>(cpu, y, in, {visible, in.kv}, block, scratch)();
}

Index mla_dense_scratch(Index N, Index R, Index P) {
  Pieces pieces;
  LatentWorkspace(pieces, block, N, R, P);
  return pieces.bytes();
}

#define DSA_INSTANTIATE(Q, Row) \
  template void mla_dense(Cpu, MlaOut, const MlaIn<Q, Row>&, KeyRanges, Scratch);
DSA_INSTANTIATE(float, float)
DSA_INSTANTIATE(bf16, bf16)
DSA_INSTANTIATE(bf16, e4m3)

}  // namespace dsa::cpu
