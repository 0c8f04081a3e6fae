// optimized/cpu/ops/candidates.hpp — candidates of some queries, from one thread or from several.
//
// The order of candidates is total, so the K largest of a row are one set, however its keys were
// shared among threads.
#pragma once

#include <omp.h>

#include <algorithm>

#include "core/failure.hpp"
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

/// The candidates of a block in a thread's scratch.
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

/// Calls offer(share, thread) for every query and all of its keys, and writes `chosen` out of
/// selection_of(thread). Many queries: a thread takes a block of them; few: all threads take the
/// same block and each a part of the keys. Exceptions of `offer` are rethrown.
template <class SelectionOf, class Offer>
void select_rows(Cpu cpu, View<std::int32_t, 2> chosen, SelectionOf selection_of, Offer offer) {
  const Index T = chosen.shape[0], K = chosen.shape[1];
  const Index threads = omp_get_max_threads();
  const bool alone = threads == 1 || T >= 4 * threads;
  const Index block =
      std::clamp<Index>(alone ? (T + threads - 1) / threads : T, 1, selection_block);
  const Index blocks = (T + block - 1) / block;
  Failure failure;
  if (alone) {
#pragma omp parallel for schedule(dynamic)
    for (Index b = blocks - 1; b >= 0; --b)
      failure.guard([&] {
        const int thread = omp_get_thread_num();
        const Share share{b * block, std::min(block, T - b * block)};
        const Selection selection = selection_of(thread);
        selection.clear(share.n);
        offer(share, thread);
        for (Index i = 0; i < share.n; ++i)
          write_candidates(cpu, selection[i], &chosen(share.first + i, 0), K);
      });
  } else {
    for (Index b = 0; b < blocks; ++b) {
#pragma omp parallel
      {
        const int thread = omp_get_thread_num(), parts = omp_get_num_threads();
        const Share share{b * block, std::min(block, T - b * block), thread, parts};
        selection_of(thread).clear(share.n);
        failure.guard([&] { offer(share, thread); });
#pragma omp barrier
#pragma omp for
        for (Index i = 0; i < share.n; ++i) {
          Candidates& all = selection_of(0)[i];
          for (int part = 1; part < parts; ++part)
            add_candidates(cpu, all, selection_of(part)[i], K);
          write_candidates(cpu, all, &chosen(share.first + i, 0), K);
        }
      }
    }
  }
  failure.rethrow();
}

}  // namespace dsa::cpu
