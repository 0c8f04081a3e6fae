#include "optimized/cpu/ops/index_recall.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/threads.hpp"
#include "optimized/cpu/ops/teacher_mass.hpp"

namespace dsa::cpu {
namespace {

/// The mass u on the first keys of an order.
struct Held {
  double mass_of_K = 0;
  double keys_90 = 0, keys_95 = 0, keys_99 = 0;  // that hold so much of all mass, as shares of n
};

/// Keys are taken by x, the largest first; of equal ones, the first.
Held held_in_order_of(const float* x, const float* u, Index n, Index K, std::vector<Index>& order) {
  order.resize(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Index{0});
  std::sort(order.begin(), order.end(),
            [&](Index a, Index b) { return x[a] != x[b] ? x[a] > x[b] : a < b; });
  const double whole = std::accumulate(u, u + n, 0.0);
  Held held;
  double sum = 0;
  for (Index i = 0; i < n; ++i) {
    sum += u[order[static_cast<std::size_t>(i)]];
    if (i + 1 == K) held.mass_of_K = sum;
    const double share = static_cast<double>(i + 1) / static_cast<double>(n);
    for (const auto& [part, keys] :
         {std::pair{0.90, &Held::keys_90}, std::pair{0.95, &Held::keys_95},
          std::pair{0.99, &Held::keys_99}})
      if (held.*keys == 0 && sum >= part * whole) held.*keys = share;
  }
  return held;
}

class Recalls {
 public:
  Recalls(Cpu cpu, const IndexIn& in, const Teacher& teacher, Index K, Pieces& shared)
      : in_(in),
        N_(teacher.q.shape[1]),
        K_(K),
        index_(cpu, in, shared),
        mass_(cpu, teacher, in.begin, shared) {}

  /// Of a thread.
  struct At {
    IndexBlocks::Scratch index;
    float *scores, *u, *mass;
    At(Pieces& pieces, const IndexIn& in)
        : index(pieces, in.q.shape[1], in.q.shape[2], 0),
          scores(pieces.take<float>(RowBlock::floats(in.q.shape[0]))),
          u(pieces.take<float>(RowBlock::floats(in.q.shape[0]))),
          mass(MassOfVisible::scratch(pieces)) {}
  };

  bool counts(Index t) const { return t + 1 - in_.begin(t) > 4 * K_; }
  /// One a row; of rows that do not count, nothing.
  std::vector<Recall> operator()(TrainMemory&) const;

 private:
  void rows(std::vector<Recall>& all, Index t, Index count, const At&) const;
  Recall row(const float* scores, float* u, Index n, std::vector<Index>& order) const;

  IndexIn in_;
  Index N_, K_;
  IndexBlocks index_;
  MassOfVisible mass_;
};

Recall Recalls::row(const float* scores, float* u, Index n, std::vector<Index>& order) const {
  Recall y;
  for (Index i = 0; i < n; ++i) {
    u[i] /= static_cast<float>(N_);
    if (u[i] > 0) y.teacher_entropy -= u[i] * std::log(static_cast<double>(u[i]));
  }
  const Held by_score = held_in_order_of(scores, u, n, K_, order);
  y.indexer = by_score.mass_of_K;
  y.indexer_keys_90 = by_score.keys_90;
  y.indexer_keys_95 = by_score.keys_95;
  y.indexer_keys_99 = by_score.keys_99;
  const Held by_mass = held_in_order_of(u, u, n, K_, order);
  y.oracle = by_mass.mass_of_K;
  y.oracle_keys_90 = by_mass.keys_90;
  y.oracle_keys_95 = by_mass.keys_95;
  y.oracle_keys_99 = by_mass.keys_99;
  y.random = static_cast<double>(K_) / static_cast<double>(n);
  for (Index i = n - K_; i < n; ++i) y.recent += u[i];
  return y;
}

void Recalls::rows(std::vector<Recall>& all, Index t, Index count, const At& at) const {
  RowBlock scores(in_.begin, t, count), u = scores;
  scores.x = at.scores;
  u.x = at.u;
  index_.score(scores, at.index);
  mass_(u, at.mass);
  std::vector<Index> order;
  for (Index i = 0; i < count; ++i) {
    const Index first = in_.begin(t + i);
    if (!counts(t + i)) continue;
    Recall& y = all[static_cast<std::size_t>(t + i)];
    y = row(scores.at(i, first), u.at(i, first), t + i + 1 - first, order);
    y.dead = index_.dead_share(t + i, at.index);
  }
}

std::vector<Recall> Recalls::operator()(TrainMemory& memory) const {
  index_.pack();
  mass_.pack();
  Pieces sizes;
  At(sizes, in_);
  const Scratch scratch = memory.threads(sizes.bytes());
  const Index T = in_.q.shape[0], blocks = (T + row_queries - 1) / row_queries;
  std::vector<Recall> all(static_cast<std::size_t>(T));
  parallel_for(blocks, shared_loop_ns, [&](Index back, int thread) {
    const Index t = (blocks - 1 - back) * row_queries, count = std::min(row_queries, T - t);
    bool any = false;
    for (Index i = t; i < t + count; ++i) any = any || counts(i);
    if (!any) return;
    Pieces pieces(scratch.of_thread(thread));
    rows(all, t, count, At(pieces, in_));
  });
  return all;
}

}  // namespace

Recall index_recall(Cpu cpu, const IndexIn& in, const Teacher& teacher, Index K,
                    TrainMemory& memory) {
  expect_index(in);
  const Index T = in.k.shape[0];
  require(in.q.shape[0] == T, "recall is of every row, and q has " + std::to_string(in.q.shape[0]) +
                                  " of " + std::to_string(T));
  expect_teacher(teacher, T, T);
  require(K > 0, "recall is of " + std::to_string(K) + " keys, expected at least 1");
  Pieces sizes;
  Recalls(cpu, in, teacher, K, sizes);
  Pieces shared(memory.shared(sizes.bytes()));
  const Recalls recalls(cpu, in, teacher, K, shared);
  const std::vector<Recall> all = recalls(memory);
  Recall y;
  for (Index t = 0; t < in.q.shape[0]; ++t) {
    if (!recalls.counts(t)) continue;
    ++y.rows;
    for (const RecallMean& mean : recall_means)
      y.*mean.value += all[static_cast<std::size_t>(t)].*mean.value;
  }
  for (const RecallMean& mean : recall_means)
    y.*mean.value /= static_cast<double>(std::max<Index>(1, y.rows));
  return y;
}

}  // namespace dsa::cpu
