// optimized/cpu/ops/candidates.hpp — candidates of some queries, from one thread or from several.
//
// The order of candidates is total, so the K largest of a row are one set, however its keys were
// shared among threads.
#pragma once

#include <algorithm>

#include "core/threads.hpp"
#include "optimized/cpu/kernels/topk_select.hpp"
#include "optimized/shared/key_range.hpp"
#include "optimized/shared/pieces.hpp"

namespace dsa::cpu {

/// Queries [first, first + n), and the part of their keys that this thread looks at.
struct Share {
  Index first = 0, n = 0;
  int part = 0, parts = 1;

  /// Where part `at` of the keys begins: parts are cut at multiples of `step` from the first key.
  Index cut(KeyRange all, Index step, int at) const {
    const Index steps = (all.size() + step - 1) / step;
    return at == parts ? all.end : all.begin + steps * at / parts * step;
  }
  KeyRange part_of(KeyRange all, Index step) const {
    return {cut(all, step, part), cut(all, step, part + 1)};
  }
};

constexpr Index selection_block = 32;  // queries at most

/// The candidates of a block in a piece of the scratch.
class Selection {
 public:
  Selection(Pieces& pieces, Index K)
      : K_(K),
        candidates_(pieces.take<Candidates>(selection_block)),
        keys_(pieces.take<std::int32_t>(selection_block * candidate_capacity(K))),
        indices_(pieces.take<std::int32_t>(selection_block * candidate_capacity(K))) {}

  Candidates& operator[](Index i) const { return candidates_[i]; }

  void clear(Index n) const {
    const Index capacity = candidate_capacity(K_);
    for (Index i = 0; i < n; ++i)
      candidates_[i] = {keys_ + i * capacity, indices_ + i * capacity, 0, lowest_key};
  }

 private:
  Index K_;
  Candidates* candidates_;
  std::int32_t *keys_, *indices_;
};

/// Candidates [begin, end) without scores: there are no more than K in all.
void take_all(Candidates&, Index begin, Index end);

/// Appends the candidates `from`, all of larger indices, and leaves the K largest of both.
void add_candidates(Cpu, Candidates& to, Candidates& from, Index K);

/// Ascending, then -1.
void write_candidates(Cpu, Candidates&, std::int32_t* chosen, Index K);

/// Calls offer(share, memory) for every query and all of its keys, and writes `chosen` out of
/// selection_of(memory): nobody else uses that piece of the scratch meanwhile. Many queries: a
/// thread takes a block of them; few: the threads take the same block and each a part of the keys.
/// `row_ns`: about what one query takes. Exceptions of `offer` are rethrown.
template <class SelectionOf, class Offer>
void select_rows(Cpu cpu, View<std::int32_t, 2> chosen, Index row_ns, SelectionOf selection_of,
                 Offer offer) {
  const Index T = chosen.shape[0], K = chosen.shape[1];
  const Index parts = threads_for(T * row_ns);
  const bool alone = parts == 1 || T >= 4 * parts;
  const Index block = std::clamp<Index>(alone ? (T + parts - 1) / parts : T, 1, selection_block);
  const Index blocks = (T + block - 1) / block;
  const auto share_of = [&](Index b) { return Share{b * block, std::min(block, T - b * block)}; };
  if (alone) {
    // The last queries see the most keys: begin with them, so that no thread ends alone.
    parallel_for(blocks, block * row_ns, [&](Index back, int thread) {
      const Share share = share_of(blocks - 1 - back);
      const Selection selection = selection_of(thread);
      selection.clear(share.n);
      offer(share, thread);
      for (Index i = 0; i < share.n; ++i)
        write_candidates(cpu, selection[i], &chosen(share.first + i, 0), K);
    });
    return;
  }
  for (Index b = 0; b < blocks; ++b) {
    const Share all = share_of(b);
    parallel_for(parts, all.n * row_ns / parts, [&](Index part) {
      selection_of(static_cast<int>(part)).clear(all.n);
      offer(Share{all.first, all.n, static_cast<int>(part), static_cast<int>(parts)},
            static_cast<int>(part));
    });
    parallel_for(all.n, 4 * K * parts, [&](Index i) {
      Candidates& mine = selection_of(0)[i];
      for (Index part = 1; part < parts; ++part)
        add_candidates(cpu, mine, selection_of(static_cast<int>(part))[i], K);
      write_candidates(cpu, mine, &chosen(all.first + i, 0), K);
    });
  }
}

}  // namespace dsa::cpu
