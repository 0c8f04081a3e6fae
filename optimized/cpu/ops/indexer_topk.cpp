#include "optimized/cpu/ops/indexer_topk.hpp"

#include <limits>

#include "core/threads.hpp"
#include "optimized/cpu/kernels/indexer_scores.hpp"
#include "optimized/cpu/ops/candidates.hpp"
#include "optimized/cpu/ops/stored.hpp"

namespace dsa::cpu {
namespace {

/// Packed queries of a block and a packed panel of keys, in a thread's scratch.
template <class Row>
class Scorer {
 public:
  Scorer(Cpu cpu, Pieces& pieces, const IndexerIn<Row>& in)
      : in_(in),
        pack_query_(pack_index_query_of[int(cpu.tier)]),
        pack_keys_(pack_index_keys_of[int(cpu.tier)]),
        score_(score_panel_of[int(cpu.tier)]),
        queries_(pieces.take_bytes(selection_block * index_query_bytes(H(), D()))),
        keys_(pieces.take<std::uint32_t>(index_panel_bytes(D()) / 4)),
        rows_(pieces.take_bytes(index_rows_bytes(D()))) {}

  void pack_query(Index slot, Index t) const {
    pack_query_(query(slot), bytes_at(in_.q.data + t * H() * D()), shape(), rows_);
  }
  /// Keys [s, s + n), n <= panel_keys.
  void pack_panel(Index s, Index n) {
    const std::byte* rows[panel_keys];
    find_rows(rows, in_.k, s, n);
    pack_keys_(keys_, scales_, rows, n, shape(), rows_);
    ask_for(s + n, std::min(panel_keys, in_.k.rows - s - n));
  }
  /// Scores of query t against the panel.
  const float* score(Index slot, Index t) {
    score_(scores_, {.q = query(slot),
                     .keys = keys_,
                     .scales = scales_,
                     .w = in_.w.data + t * H(),
                     .shape = shape(),
                     .relu = in_.relu});
    return scores_;
  }

 private:
  /// Keys [s, s + n) come nearer while this panel is scored.
  void ask_for(Index s, Index n) const {
    const Index bytes = in_.k.width * static_cast<Index>(sizeof(Row));
    for (Index i = 0; i < n; ++i)
      for (Index byte = 0; byte < bytes; byte += 64)
        __builtin_prefetch(bytes_at(in_.k.row(s + i)) + byte);
  }
  Index H() const { return in_.q.shape[1]; }
  Index D() const { return in_.q.shape[2]; }
  IndexShape shape() const { return {.storage = storage_of<Row>, .H = H(), .D = D()}; }
  std::uint32_t* query(Index slot) const {
    return reinterpret_cast<std::uint32_t*>(queries_ + slot * index_query_bytes(H(), D()));
  }

  IndexerIn<Row> in_;
  PackIndexQuery* pack_query_;
  PackIndexKeys* pack_keys_;
  ScorePanel* score_;
  std::byte* queries_;
  std::uint32_t* keys_;
  std::byte* rows_;
  float scales_[panel_keys], scores_[panel_keys];
};

template <class Row>
void check(const IndexerIn<Row>& in) {
  const Index T = in.q.shape[0], H = in.q.shape[1], D = in.q.shape[2];
  const Index width = std::is_same_v<Row, e4m3> ? fp8_index_bytes(D) : D;
  expect_shape("w", in.w, {T, H});
  if (!(in.k.width == width))
    throw Error("k has rows of " + std::to_string(in.k.width) + ", expected " +
                std::to_string(width));
  expect_visible(in.visible, T, in.k.rows);
}

/// Queries [first, first + count) that see more than `least` keys, and the keys they are scored
/// against.
struct Block {
  Index first, count, least;
  KeyRange keys;
};

/// Calls f(t, s, n, scores) for runs of keys [s, s + n) that query t of the block sees, in
/// ascending order.
template <class Row, class F>
void score_keys(Scorer<Row>& scorer, const KeyRanges& visible, const Block& block, F f) {
  const auto takes_part = [&](Index t) { return visible[t].size() > block.least; };
  for (Index i = 0; i < block.count; ++i)
    if (takes_part(block.first + i)) scorer.pack_query(i, block.first + i);
  for (Index s = block.keys.begin; s < block.keys.end; s += panel_keys) {
    const Index n = std::min(panel_keys, block.keys.end - s);
    bool packed = false;
    for (Index i = 0; i < block.count; ++i) {
      const Index t = block.first + i;
      const KeyRange seen = common({s, s + n}, visible[t]);
      if (!takes_part(t) || seen.empty()) continue;
      if (!packed) scorer.pack_panel(s, n);
      packed = true;
      f(t, seen.begin, seen.size(), scorer.score(i, t) + (seen.begin - s));
    }
  }
}

}  // namespace

template <class Row>
void indexer_topk(Cpu cpu, View<std::int32_t, 2> chosen, const IndexerIn<Row>& in,
                  Scratch scratch) {
  const Index K = chosen.shape[1];
  expect_shape("chosen", chosen, {in.q.shape[0], K});
  check(in);
  if (K == 0) return;
  const auto selection_of = [&](int thread) {
    Pieces pieces(scratch.of_thread(thread));
    return Selection(pieces, K);
  };
  OfferScores* const offer = offer_scores_of[int(cpu.tier)];
  select_rows(
      cpu, chosen, in.k.rows * in.q.shape[1] * in.q.shape[2] / 16, selection_of,
      [&](const Share& share, int thread) {
        Pieces pieces(scratch.of_thread(thread));
        const Selection selection(pieces, K);
        Scorer<Row> scorer(cpu, pieces, in);
        for (Index i = 0; i < share.n; ++i) {
          const KeyRange seen = in.visible[share.first + i];
          if (seen.empty() || seen.size() > K) continue;
          const KeyRange part = share.part_of(seen, 1);
          take_all(selection[i], part.begin, part.end);
        }
        const KeyRange all = range_of(in.visible, share.first, share.n, K);
        const Block block{.first = share.first,
                          .count = share.n,
                          .least = K,
                          .keys = share.part_of(all, panel_keys)};
        score_keys(scorer, in.visible, block, [&](Index t, Index s, Index n, const float* scores) {
          const Index nan =
              offer(selection[t - share.first], scores, n, static_cast<std::int32_t>(s), K);
          if (!(nan < 0))
            throw Error("the score of query " + std::to_string(t) + " and key " +
                        std::to_string(s + nan) + " is NaN: there is no order to select by");
        });
      });
}

Index indexer_topk_scratch(Index H, Index D, Index K) {
  Pieces pieces;
  Selection(pieces, K);
  return pieces.bytes() + indexer_scores_scratch(H, D);
}

template <class Row>
void indexer_scores(Cpu cpu, View<float, 2> scores, const IndexerIn<Row>& in, Scratch scratch) {
  const Index T = in.q.shape[0], S = in.k.rows;
  expect_shape("scores", scores, {T, S});
  check(in);
  constexpr Index span = 20 * panel_keys;  // keys for which a block's queries are packed anew
  const Index blocks = (T + selection_block - 1) / selection_block, spans = (S + span - 1) / span;
  const Index block_ns = selection_block * span * in.q.shape[1] * in.q.shape[2] / 16;
  parallel_for(blocks * spans, block_ns, [&](Index at, int thread) {
    const Index first = at / spans * selection_block, i = at % spans;
    const Block block{.first = first,
                      .count = std::min(selection_block, T - first),
                      .least = 0,
                      .keys = {i * span, std::min(S, (i + 1) * span)}};
    for (Index t = first; t < first + block.count; ++t)
      std::fill_n(&scores(t, block.keys.begin), block.keys.size(),
                  -std::numeric_limits<float>::infinity());
    Pieces pieces(scratch.of_thread(thread));
    Scorer<Row> scorer(cpu, pieces, in);
    score_keys(scorer, in.visible, block, [&](Index t, Index s, Index n, const float* run) {
      std::copy_n(run, n, &scores(t, s));
    });
  });
}

Index indexer_scores_scratch(Index H, Index D) {
  Pieces pieces;
  IndexerIn<float> shapes{};
  shapes.q.shape = {0, H, D};
  Scorer<float>(Cpu{Tier::portable}, pieces, shapes);
  return pieces.bytes();
}

#define DSA_INSTANTIATE(Row)                                                              \
  template void indexer_topk(Cpu, View<std::int32_t, 2>, const IndexerIn<Row>&, Scratch); \
  template void indexer_scores(Cpu, View<float, 2>, const IndexerIn<Row>&, Scratch);
DSA_INSTANTIATE(float)
DSA_INSTANTIATE(bf16)
DSA_INSTANTIATE(e4m3)

}  // namespace dsa::cpu
