#include "optimized/cpu/ops/index_scores.hpp"

#include "core/threads.hpp"
#include "core/views.hpp"
#include "optimized/cpu/ops/index_blocks.hpp"
#include "optimized/cpu/ops/indexer_topk.hpp"
#include "optimized/cpu/ops/interleaved.hpp"

namespace dsa::cpu {

void index_topk(Cpu cpu, View<std::int32_t, 2> chosen, const IndexIn& in, TrainMemory& memory) {
  const Index Q = in.q.shape[0], H = in.q.shape[1], D = in.q.shape[2], K = chosen.shape[1];
  expect_index(in);
  Pieces pieces(memory.shared(Index{4} * (Q * H + Q) + 128));
  float* const w = pieces.take<float>(Q * H);
  auto* const end = pieces.take<std::int32_t>(Q);
  const float scale = static_cast<float>(in.dot_scale * in.weight_scale);
  for (Index i = 0; i < Q * H; ++i) w[i] = in.w.data ? scale * in.w.data[i] : scale;
  for (Index q = 0; q < Q; ++q) end[q] = static_cast<std::int32_t>(in.first() + q + 1);
  const float* page = nullptr;
  const IndexerIn<float> scored{.q = in.q,
                                .k = one_page(in.k, page),
                                .w = {w, {Q, H}},
                                .relu = in.relu,
                                .visible = {rows(in.begin, in.first(), in.k.shape[0]), {end, {Q}}}};
  indexer_topk(cpu, chosen, scored, memory.threads(indexer_topk_scratch(H, D, K)));
}

void index_scores_backward(Cpu cpu, IndexGradient d, const IndexIn& in,
                           View<const float, 2> d_scores, View<const std::int32_t, 2> chosen,
                           TrainMemory& memory) {
  const Index Q = in.q.shape[0], H = in.q.shape[1], D = in.q.shape[2], K = chosen.shape[1];
  expect_index(in);
  expect_index_gradient(d, in);
  expect_shape("chosen", chosen, {Q, K});
  expect_shape("d_scores", d_scores, {Q, K});
  const auto make = [&](Pieces pieces) {
    const IndexBlocks index(cpu, in, pieces);
    const KeySums sums(in.begin, in.first(), D, pieces);
    return std::tuple(index, sums, pieces.bytes());
  };
  const auto [index, sums, bytes] = make(Pieces(memory.shared(std::get<2>(make(Pieces())))));
  index.pack();
  Pieces sizes;
  sizes.take<float>(K + block_lanes);
  IndexBlocks::Scratch(sizes, H, D, K);
  const Scratch scratch = memory.threads(sizes.bytes());
  const IndexBlocks& blocks = index;
  const KeySums& key_sums = sums;
  parallel_for(key_sums.parts(), shared_loop_ns, [&](Index back, int thread) {
    const Index part = key_sums.parts() - 1 - back;
    Pieces pieces(scratch.of_thread(thread));
    float* const scores = pieces.take<float>(K + block_lanes);
    const IndexBlocks::Scratch at(pieces, H, D, K);
    float* const d_keys = key_sums.clear(part);
    for (Index t = key_sums.rows(part).begin; t < key_sums.rows(part).end; ++t) {
      const Index q = t - in.first(), n = count_chosen(chosen, q, t, in.begin(t));
      const std::int32_t* const ids = chosen.data + q * K;
      blocks.score_chosen(scores, t, ids, n, at);
      blocks.differentiate_chosen(d, d_keys, d_scores.data + q * K, t, ids, n, at);
    }
  });
  key_sums.write(d.d_k);
}

}  // namespace dsa::cpu
