#include "optimized/cpu/ops/mla_dense.hpp"

#include "optimized/cpu/ops/latent_attention.hpp"

namespace dsa::cpu {
namespace {

constexpr Index block = 8;  // queries that share the rows of a chunk

/// Every key that a query sees.
template <class T>
class VisibleKeys {
 public:
  VisibleKeys(Visible visible, Pages<const T> kv) : visible_(visible), kv_(kv) {}

  void list(Index, Pieces&) {}
  Range range(Index t) const { return {visible_.begin(t), visible_.end(t)}; }
  const std::byte* row(Index s) const { return bytes_at(kv_.row(s)); }

 private:
  Visible visible_;
  Pages<const T> kv_;
};

}  // namespace

template <class Q, class T>
void mla_dense(Cpu cpu, View<float, 3> out, View<float, 2> lse, View<const Q, 3> q,
               Pages<const T> kv, Visible visible, double scale, Scratch scratch) {
  expect_latent(out, lse, q, kv);
  expect_visible(visible, q.shape[0], kv.rows);
  LatentAttention<Q, T, VisibleKeys<T>>(cpu, out, lse, q, {visible, kv}, scale, block, scratch)();
}

Index mla_dense_scratch(Index N, Index R, Index P) {
  Pieces pieces;
  LatentWorkspace(pieces, block, N, R, P);
  return pieces.bytes();
}

#define DSA_INSTANTIATE(Q, T)                                                                    \
  template void mla_dense(Cpu, View<float, 3>, View<float, 2>, View<const Q, 3>, Pages<const T>, \
                          Visible, double, Scratch);
DSA_INSTANTIATE(float, float)
DSA_INSTANTIATE(bf16, bf16)
DSA_INSTANTIATE(bf16, e4m3)

}  // namespace dsa::cpu
