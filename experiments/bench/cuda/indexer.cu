#include "experiments/bench/cuda/work.cuh"
#include "optimized/cuda/ops/indexer_scores.cuh"
#include "optimized/cuda/ops/indexer_topk.cuh"
#include "optimized/cuda/ops/topk_select.cuh"

namespace dsa::bench::DSA_PLACE {
namespace {

/// One sequence: the last T queries of a context of S, each of which sees the keys up to itself.
/// Several sequences: every query sees all S keys of its own sequence.
KeyRanges ranges(Memory& memory, Index B, Index T, Index S) {
  std::vector<std::int32_t> begin, end;
  for (Index t = 0; t < T; ++t) {
    const Index first = t / (T / B) * S;
    begin.push_back(static_cast<std::int32_t>(first));
    end.push_back(static_cast<std::int32_t>(B > 1 ? first + S : S - T + t + 1));
  }
  return {memory.list(begin), memory.list(end)};
}

template <class Row>
struct Problem {
  std::shared_ptr<Memory> memory = std::make_shared<Memory>();
  std::vector<IndexerIn<Row>> copies;
  Index B, queries, S, K;  // `queries` of one sequence

  explicit Problem(const DeviceProblem& p)
      : B(p.at('B')), queries(p.at('T') / B), S(p.at('S')), K(p.at('K')) {
    for (Index i = 0; i < copies_of(p); ++i)
      copies.push_back({.q = memory->numbers<Row, 3>({p.at('T'), p.at('H'), p.at('D')}),
                        .k = memory->rows<Row>(B * S, p.at('D'), 0),
                        .w = memory->numbers<float, 2>({p.at('T'), p.at('H')}),
                        .relu = true,
                        .visible = {}});
  }
  const IndexerIn<Row>& at(Index copy) const { return copies[static_cast<std::size_t>(copy)]; }
};

/// A launch a sequence: the op writes a score for every query and every key that it is given.
template <class Row>
Work scores_work(const DeviceProblem& p) {
  const auto x = std::make_shared<Problem<Row>>(p);
  const auto scores = x->memory->template space<float, 2>({p.at('T'), x->S});
  const KeyRanges visible = ranges(*x->memory, 1, x->queries, x->S);
  const bool v1 = p.rung == "v1";
  return [=](Index copy) {
    const IndexerIn<Row>& all = x->at(copy);
    for (Index b = 0; b < x->B; ++b) {
      const Index first = b * x->queries;
      const auto out = rows(scores, first, first + x->queries);
      const IndexerIn<Row> in{.q = rows(all.q, first, first + x->queries),
                              .k = Memory::part(all.k, b * x->S, x->S),
                              .w = rows(all.w, first, first + x->queries),
                              .relu = true,
                              .visible = visible};
      if (v1)
        v1::indexer_scores(Stream{}, out, in);
      else
        indexer_scores(Stream{}, out, in);
    }
  };
}

/// Fused, over all sequences at once; or scores and then a selection, of one sequence.
template <class Row>
Work indexer_topk_work(const DeviceProblem& p) {
  const auto x = std::make_shared<Problem<Row>>(p);
  Memory& memory = *x->memory;
  const Index T = p.at('T'), rows = x->B * x->S;
  const auto chosen = memory.space<std::int32_t, 2>({T, x->K});
  const auto nan_at = memory.space<std::int32_t, 1>({T});
  const KeyRanges visible = ranges(memory, x->B, T, x->S);
  for (IndexerIn<Row>& in : x->copies) {
    in.visible = visible;
    in.longest = x->S;
  }
  if (p.rung == "two passes") {
    const auto scores = memory.space<float, 2>({T, rows});
    return [=](Index copy) {
      indexer_scores(Stream{}, scores, x->at(copy));
      topk_select(Stream{}, chosen, nan_at, scores);
    };
  }
  const auto workspace = memory.space<std::uint32_t, 1>({indexer_topk_workspace(T, x->K, x->S)});
  return [=](Index copy) { indexer_topk(Stream{}, chosen, nan_at, x->at(copy), workspace); };
}

Work select_work(const DeviceProblem& p) {
  const Index T = p.at('T'), S = p.at('S');
  const auto memory = std::make_shared<Memory>();
  std::vector<DeviceView<const float, 2>> copies;
  for (Index i = 0; i < copies_of(p); ++i) copies.push_back(memory->numbers<float, 2>({T, S}));
  const auto chosen = memory->space<std::int32_t, 2>({T, p.at('K')});
  const auto nan_at = memory->space<std::int32_t, 1>({T});
  const bool v1 = p.rung == "v1";
  return [=](Index copy) {
    const auto& scores = copies[static_cast<std::size_t>(copy)];
    if (v1)
      v1::topk_select(Stream{}, chosen, nan_at, scores);
    else
      topk_select(Stream{}, chosen, nan_at, scores);
    (void)memory;
  };
}

}  // namespace

Work indexer_work(const DeviceProblem& p) {
  if (p.op == "topk_select") return select_work(p);
  if (p.op == "indexer_scores")
    return p.dtype == "fp8" ? scores_work<e4m3>(p) : scores_work<bf16>(p);
  return p.dtype == "fp8" ? indexer_topk_work<e4m3>(p) : indexer_topk_work<bf16>(p);
}

}  // namespace dsa::bench::DSA_PLACE
