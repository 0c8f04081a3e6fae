#include "optimized/cpu/ops/topk_select.hpp"

#include "optimized/cpu/ops/candidates.hpp"

namespace dsa::cpu {

void topk_select(Cpu cpu, View<std::int32_t, 2> chosen, View<const float, 2> scores,
                 Scratch scratch) {
  const Index T = scores.shape[0], S = scores.shape[1], K = chosen.shape[1];
  expect_shape("chosen", chosen, {T, K});
  if (T == 0 || K == 0) return;
  const auto selection_of = [&](int thread) {
    Pieces pieces(scratch.of_thread(thread));
    return Selection(pieces, K);
  };
  OfferScores* const offer = offer_scores_of[int(cpu.tier)];
  select_rows(cpu, chosen, S, selection_of, [&](const Share& share, int thread) {
    const KeyRange part = share.part_of({0, S}, 64);
    for (Index i = 0; i < share.n; ++i) {
      const Index t = share.first + i;
      const Index nan = offer(selection_of(thread)[i], scores.data + t * S + part.begin,
                              part.size(), static_cast<std::int32_t>(part.begin), K);
      if (!(nan < 0))
        throw Error("score (" + std::to_string(t) + ", " + std::to_string(part.begin + nan) +
                    ") is NaN: there is no order to select by");
    }
  });
}

Index topk_select_scratch(Index, Index K) {
  Pieces pieces;
  Selection(pieces, K);
  return pieces.bytes();
}

}  // namespace dsa::cpu
