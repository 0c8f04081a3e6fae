#include "optimized/cpu/ops/indexer_topk.hpp"

#include <limits>

#include "optimized/cpu/kernels/indexer_scores.hpp"
#include "optimized/cpu/ops/candidates.hpp"
#include "optimized/cpu/ops/stored.hpp"

namespace dsa::cpu {
namespace {

/// Packed queries of a block and a packed panel of keys, in a thread's scratch.
template <class T>
class Scorer {
 public:
  Scorer(Cpu cpu, Pieces& pieces, View<const T, 3> q, Pages<const T> k, View<const float, 2> w,
         bool relu)
      : q_(q),
        k_(k),
        w_(w),
        relu_(relu),
        pack_query_(pack_index_query_of[int(cpu.tier)]),
        pack_keys_(pack_index_keys_of[int(cpu.tier)]),
        score_(score_panel_of[int(cpu.tier)]),
        queries_(pieces.take_bytes(selection_block * index_query_bytes(H(), D()))),
        keys_(pieces.take<std::uint32_t>(index_panel_bytes(D()) / 4)),
        rows_(pieces.take_bytes(index_rows_bytes(D()))) {}

  void pack_query(Index slot, Index t) const {
    pack_query_(query(slot), bytes_at(q_.data + t * H() * D()), storage_of<T>, H(), D(), rows_);
  }
  /// Keys [s, s + n), n <= panel_keys.
  void pack_panel(Index s, Index n) {
    const std::byte* rows[panel_keys];
    find_rows(rows, k_, s, n);
    pack_keys_(keys_, scales_, rows, n, storage_of<T>, D(), rows_);
    ask_for(s + n, std::min(panel_keys, k_.rows - s - n));
  }
  /// Scores of query t against the panel.
  const float* score(Index slot, Index t) {
    score_(scores_, query(slot), keys_, scales_, w_.data + t * H(), storage_of<T>, H(), D(), relu_);
    return scores_;
  }

 private:
  /// Keys [s, s + n) come nearer while this panel is scored.
  void ask_for(Index s, Index n) const {
    const Index bytes = k_.width * static_cast<Index>(sizeof(T));
    for (Index i = 0; i < n; ++i)
      for (Index byte = 0; byte < bytes; byte += 64)
        __builtin_prefetch(bytes_at(k_.row(s + i)) + byte);
  }
  Index H() const { return q_.shape[1]; }
  Index D() const { return q_.shape[2]; }
  std::uint32_t* query(Index slot) const {
    return reinterpret_cast<std::uint32_t*>(queries_ + slot * index_query_bytes(H(), D()));
  }

  View<const T, 3> q_;
  Pages<const T> k_;
  View<const float, 2> w_;
  bool relu_;
  PackIndexQuery* pack_query_;
  PackIndexKeys* pack_keys_;
  ScorePanel* score_;
  std::byte* queries_;
  std::uint32_t* keys_;
  std::byte* rows_;
  float scales_[panel_keys], scores_[panel_keys];
};

template <class T>
void check(View<const T, 3> q, Pages<const T> k, View<const float, 2> w, Visible visible) {
  const Index D = q.shape[2], width = std::is_same_v<T, e4m3> ? fp8_index_bytes(D) : D;
  expect_shape("w", w, {q.shape[0], q.shape[1]});
  if (!(k.width == width))
    throw Error("k has rows of " + std::to_string(k.width) + ", expected " + std::to_string(width));
  expect_visible(visible, q.shape[0], k.rows);
}

/// Calls f(t, s, n, scores) for runs of keys [s, s + n) within [from, to), in ascending order, of
/// the queries [first, first + count) that see more than `least` keys.
template <class T, class F>
void score_keys(Scorer<T>& scorer, Visible visible, Index first, Index count, Index least,
                Index from, Index to, F f) {
  const auto sees = [&](Index t) { return visible.end(t) - visible.begin(t) > least; };
  for (Index i = 0; i < count; ++i)
    if (sees(first + i)) scorer.pack_query(i, first + i);
  for (Index s = from; s < to; s += panel_keys) {
    const Index n = std::min(panel_keys, to - s);
    bool packed = false;
    for (Index i = 0; i < count; ++i) {
      const Index t = first + i;
      const Index begin = std::max<Index>(s, visible.begin(t)),
                  end = std::min<Index>(s + n, visible.end(t));
      if (!sees(t) || begin >= end) continue;
      if (!packed) scorer.pack_panel(s, n);
      packed = true;
      f(t, begin, end - begin, scorer.score(i, t) + (begin - s));
    }
  }
}

}  // namespace

template <class T>
void indexer_topk(Cpu cpu, View<std::int32_t, 2> chosen, View<const T, 3> q, Pages<const T> k,
                  View<const float, 2> w, bool relu, Visible visible, Scratch scratch) {
  const Index K = chosen.shape[1];
  expect_shape("chosen", chosen, {q.shape[0], K});
  check(q, k, w, visible);
  if (K == 0) return;
  const auto selection_of = [&](int thread) {
    Pieces pieces(scratch.of_thread(thread));
    return Selection(pieces, K);
  };
  OfferScores* const offer = offer_scores_of[int(cpu.tier)];
  select_rows(cpu, chosen, selection_of, [&](const Share& share, int thread) {
    Pieces pieces(scratch.of_thread(thread));
    const Selection selection(pieces, K);
    Scorer<T> scorer(cpu, pieces, q, k, w, relu);
    for (Index i = 0; i < share.n; ++i) {
      const Index begin = visible.begin(share.first + i), end = visible.end(share.first + i);
      if (begin < end && end - begin <= K)
        take_all(selection[i], share.from(begin, end, 1), share.to(begin, end, 1));
    }
    const Range all = range_of(visible, share.first, share.n, K);
    score_keys(scorer, visible, share.first, share.n, K, share.from(all.begin, all.end, panel_keys),
               share.to(all.begin, all.end, panel_keys),
               [&](Index t, Index s, Index n, const float* scores) {
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

template <class T>
void indexer_scores(Cpu cpu, View<float, 2> scores, View<const T, 3> q, Pages<const T> k,
                    View<const float, 2> w, bool relu, Visible visible, Scratch scratch) {
  const Index T_ = q.shape[0], S = k.rows;
  expect_shape("scores", scores, {T_, S});
  check(q, k, w, visible);
  constexpr Index span = 20 * panel_keys;  // keys for which a block's queries are packed anew
  const Index blocks = (T_ + selection_block - 1) / selection_block, spans = (S + span - 1) / span;
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (Index b = 0; b < blocks; ++b)
    for (Index i = 0; i < spans; ++i) {
      const Index first = b * selection_block, count = std::min(selection_block, T_ - first);
      const Index from = i * span, to = std::min(S, from + span);
      for (Index t = first; t < first + count; ++t)
        std::fill(&scores(t, from), &scores(t, from) + (to - from),
                  -std::numeric_limits<float>::infinity());
      Pieces pieces(scratch.of_thread(omp_get_thread_num()));
      Scorer<T> scorer(cpu, pieces, q, k, w, relu);
      score_keys(
          scorer, visible, first, count, 0, from, to,
          [&](Index t, Index s, Index n, const float* run) { std::copy_n(run, n, &scores(t, s)); });
    }
}

Index indexer_scores_scratch(Index H, Index D) {
  Pieces pieces;
  Scorer<float>(Cpu{Tier::portable}, pieces, {nullptr, {0, H, D}}, {}, {}, true);
  return pieces.bytes();
}

#define DSA_INSTANTIATE(T)                                                                 \
  template void indexer_topk(Cpu, View<std::int32_t, 2>, View<const T, 3>, Pages<const T>, \
                             View<const float, 2>, bool, Visible, Scratch);                \
  template void indexer_scores(Cpu, View<float, 2>, View<const T, 3>, Pages<const T>,      \
                               View<const float, 2>, bool, Visible, Scratch);
DSA_INSTANTIATE(float)
DSA_INSTANTIATE(bf16)
DSA_INSTANTIATE(e4m3)

}  // namespace dsa::cpu
