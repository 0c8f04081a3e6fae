#include "optimized/cpu/ops/mla_sparse.hpp"

#include "optimized/cpu/ops/latent_attention.hpp"

namespace dsa::cpu {
namespace {

/// The chosen keys of one query, those that are keys.
template <class Row>
class ChosenKeys {
 public:
  ChosenKeys(View<const std::int32_t, 2> chosen, Pages<const Row> kv) : chosen_(chosen), kv_(kv) {}

  void list(Index t, Pieces& pieces) {
    const Index K = chosen_.shape[1];
    auto* const keys = pieces.take<std::int32_t>(K);
    const std::int32_t* const row = chosen_.data + t * K;
    count_ = std::copy_if(row, row + K, keys, [](std::int32_t s) { return s >= 0; }) - keys;
    keys_ = keys;
  }
  KeyRange range(Index) const { return {0, count_}; }
  Index most(Index) const { return chosen_.shape[1]; }
  const std::byte* row(Index i) const { return bytes_at(kv_.row(keys_[i])); }

 private:
  View<const std::int32_t, 2> chosen_;
  Pages<const Row> kv_;
  const std::int32_t* keys_ = nullptr;
  Index count_ = 0;
};

}  // namespace

template <class Q, class Row>
void mla_sparse(Cpu cpu, MlaOut y, const MlaIn<Q, Row>& in, View<const std::int32_t, 2> chosen,
                Scratch scratch) {
  expect_latent(y, in);
  expect_shape("chosen", chosen, {in.q.shape[0], chosen.shape[1]});
  for (const std::int32_t s : chosen)
    if (!(-1 <= s && s < in.kv.rows))
      throw Error("chosen holds key " + std::to_string(s) + ", expected -1 to " +
                  std::to_string(in.kv.rows - 1));
  LatentAttention<Q, Row, ChosenKeys<Row>>(cpu, y, in, {chosen, in.kv}, 1, scratch)();
}

Index mla_sparse_scratch(Index N, Index R, Index P, Index K) {
  Pieces pieces;
  LatentWorkspace(pieces, 1, N, R, P);
  pieces.take<std::int32_t>(K);
  return pieces.bytes();
}

#define DSA_INSTANTIATE(Q, Row) \
  template void mla_sparse(Cpu, MlaOut, const MlaIn<Q, Row>&, View<const std::int32_t, 2>, Scratch);
DSA_INSTANTIATE(float, float)
DSA_INSTANTIATE(bf16, bf16)
DSA_INSTANTIATE(bf16, e4m3)

}  // namespace dsa::cpu
