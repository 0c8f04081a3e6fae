// The indexer in training: its selection, the gradient of its scores, recall.
#include "tests/cpu/train_index.hpp"

#include <optional>

#include "optimized/cpu/ops/index_recall.hpp"

using namespace dsa;
using namespace dsa::test;
using verify::gamma;

namespace {

constexpr double u = verify::unit_roundoff_fp32;

}  // namespace

TEST_CASE("the gradient of chosen index scores is the reference's", "[cpu][train]") {
  for (const IndexSizes& sizes : index_sizes)
    for (const bool relu : {false, true}) {
      const IndexProblem problem(sizes, relu);
      const Tensor<float, 2> d_scores = draw<2>({problem.T, problem.z.K}, 17);
      Tensor<double, 2> all({problem.T, problem.T});
      for (Index t = 0; t < problem.T; ++t)
        for (Index i = 0; i < problem.z.K; ++i)
          if (problem.chosen(t, i) >= 0) all(t, problem.chosen(t, i)) = d_scores(t, i);
      const Tensor<double, 2> exact({problem.T, problem.T});
      std::optional<Gradient<float>> first;
      for (const int threads : {1, 4}) {
        const Threads scope(threads);
        Gradient<float> d(problem.T, problem.z, 99.0f);
        cpu::TrainMemory memory;
        cpu::index_scores_backward({}, problem.gradient(d), problem.in(), d_scores, problem.chosen,
                                   memory);
        problem.check(d, all, exact);
        if (first) CHECK(same(*first, d));
        first = d;
      }
    }
}

TEST_CASE("training selects the keys of largest scores, and of equal ones the first",
          "[cpu][train]") {
  // Multiples of 1/8: every sum is exact, and many are equal.
  for (const bool uniform : {false, true}) {
    IndexProblem problem({{{40, 1, 60}}, 4, 16, 1, 1, 9}, true, uniform);
    for (Index i = 0; i < problem.q.size(); ++i)
      problem.q.data()[i] = static_cast<float>(dyadic(18, static_cast<std::uint64_t>(i) % 64));
    for (Index i = 0; i < problem.k.size(); ++i)
      problem.k.data()[i] = static_cast<float>(dyadic(19, static_cast<std::uint64_t>(i) % 80));
    if (!uniform)
      for (Index i = 0; i < problem.w.size(); ++i)
        problem.w.data()[i] = static_cast<float>(dyadic(20, static_cast<std::uint64_t>(i)));
    ChosenKeys chosen({problem.T, problem.z.K}, 99);
    cpu::TrainMemory memory;
    cpu::index_topk({}, chosen, problem.in(), memory);
    for (Index t = 0; t < problem.T; ++t) {
      std::vector<Index> order(static_cast<std::size_t>(t + 1 - problem.begin(t)));
      for (std::size_t i = 0; i < order.size(); ++i)
        order[i] = problem.begin(t) + static_cast<Index>(i);
      std::stable_sort(order.begin(), order.end(),
                       [&](Index a, Index b) { return problem.score(t, a) > problem.score(t, b); });
      order.resize(std::min(order.size(), static_cast<std::size_t>(problem.z.K)));
      std::sort(order.begin(), order.end());
      CHECK(keys_of_row(chosen, t) == order);
    }
  }
}

TEST_CASE("a part of the rows selects as it does in the whole", "[cpu][train]") {
  for (const IndexSizes& sizes : index_sizes) {
    const IndexProblem problem(sizes);
    if (problem.T == 1) continue;
    cpu::TrainMemory memory;
    ChosenKeys whole({problem.T, problem.z.K}), parts = whole;
    cpu::index_topk({}, whole, problem.in(), memory);
    for (const Index cut : {Index{1}, 2 * problem.T / 3}) {
      cpu::index_topk({}, rows(parts.view(), 0, cut), problem.in(0, cut), memory);
      cpu::index_topk({}, rows(parts.view(), cut, problem.T), problem.in(cut, problem.T), memory);
      CHECK(std::equal(whole.begin(), whole.end(), parts.begin()));
    }
  }
}

TEST_CASE("recall is the share of the teacher's mass", "[cpu][train]") {
  for (const bool relu : {false, true}) {
    const IndexProblem problem({{{90, 1, 60}}, 3, 16, 4, 8, 1}, relu);
    constexpr Index K = 7;
    cpu::TrainMemory memory;
    const Recall y = cpu::index_recall(
        {}, problem.in(),
        {problem.teacher_q, problem.teacher_k, problem.lse_visible, problem.teacher_scale}, K,
        memory);
    Recall expected;
    double error = 0, by_score[2][3] = {}, by_mass[2][3] = {};
    for (Index t = 0; t < problem.T; ++t) {
      const Index first = problem.begin(t), n = t + 1 - first;
      if (n <= 4 * K) continue;
      ++expected.rows;
      std::vector<double> mass, scores;
      Index dead = 0;
      for (Index s = first; s <= t; ++s) {
        double sum = 0;
        for (Index h = 0; h < problem.z.N; ++h) {
          const double a = problem.teacher_score(t, h, s), lse = problem.lse_visible(t, h);
          sum += std::exp(a - lse);
          error = std::max(error,
                           verify::exp_error(std::abs(a) + std::abs(lse),
                                             problem.teacher_error(t, h, s) + u * std::abs(lse)));
        }
        mass.push_back(sum / static_cast<double>(problem.z.N));
        scores.push_back(problem.score(t, s));
        for (Index h = 0; h < problem.z.H; ++h) dead += !(problem.dot(t, h, s) > 0);
      }
      const auto kept = [&](const std::vector<double>& x) {
        std::vector<std::size_t> order(x.size());
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
        std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return x[a] > x[b]; });
        double sum = 0;
        for (std::size_t i = 0; i < K; ++i) sum += mass[order[i]];
        return sum;
      };
      // A mass that ends within its error of a share may need one key more or less.
      const auto keys = [&](const std::vector<double>& x, double share) {
        std::vector<std::size_t> order(x.size());
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
        std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return x[a] > x[b]; });
        double sum = 0;
        std::size_t i = 0;
        while (i < order.size() && sum < share) sum += mass[order[i++]];
        return static_cast<double>(i) / static_cast<double>(n);
      };
      constexpr double shares[] = {0.90, 0.95, 0.99};
      for (int i = 0; i < 3; ++i)
        for (const double wide : {-1.0, 1.0}) {
          const double share = shares[i] + wide * 1e-4;  // more than the bound below
          by_score[wide > 0][i] += keys(scores, share);
          by_mass[wide > 0][i] += keys(mass, share);
        }
      expected.indexer += kept(scores);
      expected.oracle += kept(mass);
      expected.random += static_cast<double>(K) / static_cast<double>(n);
      for (std::size_t i = mass.size() - K; i < mass.size(); ++i) expected.recent += mass[i];
      for (double p : mass) expected.teacher_entropy -= p * std::log(p);
      expected.dead += static_cast<double>(dead) / static_cast<double>(n * problem.z.H);
    }
    REQUIRE(y.rows == expected.rows);
    const double rows = static_cast<double>(y.rows);
    // Every share is a sum of masses; x log x changes by at most (1 + log n) times x's change.
    const double bound = error + gamma(problem.z.N + 4, u);
    const double sums = gamma(problem.T, verify::unit_roundoff_fp64);  // of shares up to 1
    CHECK(std::abs(y.indexer - expected.indexer / rows) <= bound);
    CHECK(std::abs(y.oracle - expected.oracle / rows) <= bound);
    CHECK(std::abs(y.recent - expected.recent / rows) <= bound);
    CHECK(std::abs(y.random - expected.random / rows) <= sums);
    CHECK(std::abs(y.teacher_entropy - expected.teacher_entropy / rows) <=
          bound * (1 + std::log(static_cast<double>(problem.T))) * 2);
    CHECK(std::abs(y.dead - expected.dead / rows) <= sums);
    CHECK(bound < 1e-4);
    const double found[] = {y.indexer_keys_90, y.indexer_keys_95, y.indexer_keys_99},
                 best[] = {y.oracle_keys_90, y.oracle_keys_95, y.oracle_keys_99};
    for (int i = 0; i < 3; ++i) {
      CHECK(found[i] >= by_score[0][i] / rows - sums);
      CHECK(found[i] <= by_score[1][i] / rows + sums);
      CHECK(best[i] >= by_mass[0][i] / rows - sums);
      CHECK(best[i] <= by_mass[1][i] / rows + sums);
    }
  }
}
