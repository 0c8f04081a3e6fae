#include "optimized/cpu/ops/index_recall.hpp"

#include <omp.h>

#include <cmath>
#include <numeric>

#include "core/failure.hpp"
#include "optimized/cpu/ops/teacher_mass.hpp"

namespace dsa::cpu {
namespace {

/// What one row came to; rows are added up in their order.
struct RowRecall {
  double indexer = 0, random = 0, recent = 0, oracle = 0, entropy = 0, dead = 0;
};

/// The mass u of the K keys of largest x; of equal ones, the first.
double mass_of_largest(const float* x, const float* u, Index n, Index K,
                       std::vector<Index>& order) {
  order.resize(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Index{0});
  std::nth_element(order.begin(), order.begin() + K, order.end(),
                   [&](Index a, Index b) { return x[a] != x[b] ? x[a] > x[b] : a < b; });
  std::sort(order.begin(), order.begin() + K);
  double sum = 0;
  for (Index i = 0; i < K; ++i) sum += u[order[static_cast<std::size_t>(i)]];
  return sum;
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
  std::vector<RowRecall> operator()(TrainMemory&) const;

 private:
  void rows(std::vector<RowRecall>& all, Index t, Index count, const At&) const;
  RowRecall row(const float* scores, float* u, Index n, std::vector<Index>& order) const;

  IndexIn in_;
  Index N_, K_;
  IndexBlocks index_;
  MassOfVisible mass_;
};

RowRecall Recalls::row(const float* scores, float* u, Index n, std::vector<Index>& order) const {
  RowRecall y;
  for (Index i = 0; i < n; ++i) {
    u[i] /= static_cast<float>(N_);
    if (u[i] > 0) y.entropy -= u[i] * std::log(static_cast<double>(u[i]));
  }
  y.indexer = mass_of_largest(scores, u, n, K_, order);
  y.oracle = mass_of_largest(u, u, n, K_, order);
  y.random = static_cast<double>(K_) / static_cast<double>(n);
  for (Index i = n - K_; i < n; ++i) y.recent += u[i];
  return y;
}

void Recalls::rows(std::vector<RowRecall>& all, Index t, Index count, const At& at) const {
  RowBlock scores(in_.begin, t, count), u = scores;
  scores.x = at.scores;
  u.x = at.u;
  index_.score(scores, at.index);
  mass_(u, at.mass);
  std::vector<Index> order;
  for (Index i = 0; i < count; ++i) {
    const Index first = in_.begin(t + i);
    if (!counts(t + i)) continue;
    RowRecall& y = all[static_cast<std::size_t>(t + i)];
    y = row(scores.at(i, first), u.at(i, first), t + i + 1 - first, order);
    y.dead = index_.dead_share(t + i, at.index);
  }
}

std::vector<RowRecall> Recalls::operator()(TrainMemory& memory) const {
  index_.pack();
  mass_.pack();
  Pieces sizes;
  At(sizes, in_);
  const Scratch scratch = memory.threads(sizes.bytes());
  const Index T = in_.q.shape[0], blocks = (T + row_queries - 1) / row_queries;
  std::vector<RowRecall> all(static_cast<std::size_t>(T));
  Failure failure;
#pragma omp parallel for schedule(dynamic)
  for (Index b = blocks - 1; b >= 0; --b)
    failure.guard([&] {
      const Index t = b * row_queries, count = std::min(row_queries, T - t);
      bool any = false;
      for (Index i = t; i < t + count; ++i) any = any || counts(i);
      if (!any) return;
      Pieces pieces(scratch.of_thread(omp_get_thread_num()));
      rows(all, t, count, At(pieces, in_));
    });
  failure.rethrow();
  return all;
}

}  // namespace

IndexRecall index_recall(Cpu cpu, const IndexIn& in, const Teacher& teacher, Index K,
                         TrainMemory& memory) {
  expect_index(in);
  expect_teacher(teacher, in.q.shape[0]);
  require(K > 0, "recall is of " + std::to_string(K) + " keys, expected at least 1");
  Pieces sizes;
  Recalls(cpu, in, teacher, K, sizes);
  Pieces shared(memory.shared(sizes.bytes()));
  const Recalls recalls(cpu, in, teacher, K, shared);
  const std::vector<RowRecall> all = recalls(memory);
  IndexRecall y;
  for (Index t = 0; t < in.q.shape[0]; ++t) {
    if (!recalls.counts(t)) continue;
    const RowRecall& row = all[static_cast<std::size_t>(t)];
    ++y.rows;
    y.indexer += row.indexer;
    y.random += row.random;
    y.recent += row.recent;
    y.oracle += row.oracle;
    y.teacher_entropy += row.entropy;
    y.dead += row.dead;
  }
  const double rows = static_cast<double>(std::max<Index>(1, y.rows));
  for (double* mean : {&y.indexer, &y.random, &y.recent, &y.oracle, &y.teacher_entropy, &y.dead})
    *mean /= rows;
  return y;
}

}  // namespace dsa::cpu
