#include "experiments/bench/cuda/work.cuh"
#include "optimized/cuda/ops/indexer_scores.cuh"
#include "optimized/cuda/ops/indexer_topk.cuh"
#include "optimized/cuda/ops/topk_select.cuh"

namespace dsa::bench::DSA_PLACE {
namespace {

template <class T>
struct Inputs {
  DeviceView<const T, 3> q;
  Pages<const T> k;
  DeviceView<const float, 2> w;
};

/// What each query sees: the last T of one context of S, each sees itself and what is before it; of
/// several sequences, all of its own, which begins at `first` of the first query's keys.
Visible ranges(Memory& memory, Index B, Index T, Index S) {
  std::vector<std::int32_t> begin, end;
  for (Index t = 0; t < T; ++t) {
    const Index first = t / (T / B) * S;
    begin.push_back(static_cast<std::int32_t>(first));
    end.push_back(static_cast<std::int32_t>(B > 1 ? first + S : S - T + t + 1));
  }
  return {memory.list(begin), memory.list(end)};
}

/// Rows [first, first + n) of (T, ...) views.
template <class X, int Rank>
DeviceView<X, Rank> rows_of(DeviceView<X, Rank> x, Index first, Index n) {
  Index row = 1;
  for (int axis = 1; axis < Rank; ++axis) row *= x.shape[axis];
  x.data += first * row;
  x.shape[0] = n;
  return x;
}

template <class T>
struct Problem {
  std::shared_ptr<Memory> memory = std::make_shared<Memory>();
  std::vector<Inputs<T>> copies;
  Index B, queries, S, K;  // `queries` of one sequence

  explicit Problem(const DeviceProblem& p)
      : B(p.at('B')), queries(p.at('T') / B), S(p.at('S')), K(p.at('K')) {
    for (Index i = 0; i < copies_of(p); ++i)
      copies.push_back({memory->numbers<T, 3>({p.at('T'), p.at('H'), p.at('D')}),
                        memory->rows<T>(B * S, p.at('D'), 0),
                        memory->numbers<float, 2>({p.at('T'), p.at('H')})});
  }
  const Inputs<T>& at(Index copy) const { return copies[static_cast<std::size_t>(copy)]; }
};

/// A launch a sequence: the op writes a score for every query and every key that it is given.
template <class T>
Work scores_work(const DeviceProblem& p) {
  const auto x = std::make_shared<Problem<T>>(p);
  const auto scores = x->memory->template space<float, 2>({p.at('T'), x->S});
  const Visible visible = ranges(*x->memory, 1, x->queries, x->S);
  const bool v1 = p.rung == "v1";
  return [=](Index copy) {
    const Inputs<T>& in = x->at(copy);
    for (Index b = 0; b < x->B; ++b) {
      const Index first = b * x->queries;
      const auto out = rows_of(scores, first, x->queries);
      const auto q = rows_of(in.q, first, x->queries);
      const auto w = rows_of(in.w, first, x->queries);
      const auto k = Memory::part(in.k, b * x->S, x->S);
      if (v1)
        v1::indexer_scores(Stream{}, out, q, k, w, true, visible);
      else
        indexer_scores(Stream{}, out, q, k, w, true, visible);
    }
  };
}

/// Fused, over all sequences at once; or scores and then a selection, of one sequence.
template <class T>
Work indexer_topk_work(const DeviceProblem& p) {
  const auto x = std::make_shared<Problem<T>>(p);
  Memory& memory = *x->memory;
  const Index T_ = p.at('T'), rows = x->B * x->S;
  const auto chosen = memory.space<std::int32_t, 2>({T_, x->K});
  const auto nan_at = memory.space<std::int32_t, 1>({T_});
  const Visible visible = ranges(memory, x->B, T_, x->S);
  if (p.rung == "two passes") {
    const auto scores = memory.space<float, 2>({T_, rows});
    return [=](Index copy) {
      const Inputs<T>& in = x->at(copy);
      indexer_scores(Stream{}, scores, in.q, in.k, in.w, true, visible);
      topk_select(Stream{}, chosen, nan_at, scores);
    };
  }
  const auto workspace = memory.space<std::uint32_t, 1>({indexer_topk_workspace(T_, x->K, rows)});
  return [=](Index copy) {
    const Inputs<T>& in = x->at(copy);
    indexer_topk(Stream{}, chosen, nan_at, in.q, in.k, in.w, true, visible, workspace);
  };
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
