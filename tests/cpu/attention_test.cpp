// Sparse and dense attention of the CPU backend: every tier, every format of rows.
#include <algorithm>
#include <cmath>
#include <limits>

#include "optimized/cpu/ops/mla_dense.hpp"
#include "optimized/cpu/ops/mla_sparse.hpp"
#include "reference/ops/mla.hpp"
#include "tests/catch.hpp"
#include "tests/cpu/caches.hpp"
#include "verify/measure/bounds.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

struct Shapes {
  Index T, S, N, R, P;
};

/// Latent rows of R e4m3 with a scale for every 128 and P bf16. A kernel sees value times scale
/// rounded to bf16.
template <class T>
CacheRows<T> latent_rows(const Tensor<float, 2>& x, Index R) {
  if constexpr (!std::is_same_v<T, e4m3>) {
    return rows_of<T>(x);
  } else {
    const Index S = x.shape()[0], P = x.shape()[1] - R;
    CacheRows<T> rows{Tensor<T, 2>({S, fp8_latent_bytes(R, P)}), Tensor<double, 2>(x.shape())};
    for (Index s = 0; s < S; ++s) {
      e4m3* to = &rows.stored(s, 0);
      for (Index r = 0; r < R; ++r) {
        const float scale = 0.01f * static_cast<float>(r / fp8_run + s % 5 + 1);
        to[r] = to_e4m3(x(s, r) * 40);
        rows.seen(s, r) = number(to_bf16(static_cast<float>(number(to[r])) * scale));
        std::memcpy(static_cast<void*>(to + R + 4 * (r / fp8_run)), &scale, 4);
      }
      to += rows.stored.shape()[1] - 2 * P;
      for (Index p = 0; p < P; ++p) {
        const bf16 rounded = to_bf16(x(s, R + p));
        rows.seen(s, R + p) = number(rounded);
        std::memcpy(static_cast<void*>(to + 2 * p), &rounded, 2);
      }
    }
    return rows;
  }
}

struct Result {
  Tensor<float, 3> out;
  Tensor<float, 2> lse;
  bool operator==(const Result& other) const {
    return same_bits(out, other.out) && same_bits(lse, other.lse);
  }
};

/// T: of the rows. The queries are bf16 unless the rows are float.
template <class T>
struct Problem {
  using Q = std::conditional_t<std::is_same_v<T, float>, float, bf16>;
  Shapes shape;
  Tensor<Q, 3> q;
  CacheRows<T> kv;
  double scale = 0.3;

  Problem(Shapes s, std::uint64_t seed)
      : shape(s),
        q(test::stored<Q>(draw<3>({s.T, s.N, s.R + s.P}, seed))),
        kv(latent_rows<T>(draw<2>({s.S, s.R + s.P}, seed + 1), s.R)) {}

  Result empty_result() const {
    return {Tensor<float, 3>({shape.T, shape.N, shape.R}, 99),
            Tensor<float, 2>({shape.T, shape.N}, 99)};
  }
  Result sparse(cpu::Tier tier, const Tensor<std::int32_t, 2>& chosen,
                Index page_rows = 1000) const {
    Result y = empty_result();
    ScratchMemory scratch(cpu::mla_sparse_scratch(shape.N, shape.R, shape.P, chosen.shape()[1]));
    const Paged<T> cache(kv.stored, page_rows);
    cpu::mla_sparse<Q, T>({tier}, {y.out, y.lse}, {.q = q, .kv = cache, .scale = scale}, chosen,
                          scratch);
    return y;
  }
  Result dense(cpu::Tier tier, const Ranges& visible, Index page_rows = 1000) const {
    Result y = empty_result();
    ScratchMemory scratch(cpu::mla_dense_scratch(shape.N, shape.R, shape.P));
    const Paged<T> cache(kv.stored, page_rows);
    cpu::mla_dense<Q, T>({tier}, {y.out, y.lse}, {.q = q, .kv = cache, .scale = scale}, visible,
                         scratch);
    return y;
  }

  /// (T, N, R+P) of the queries as numbers.
  double query(Index t, Index n, Index i) const { return number(q(t, n, i)); }

  /// Elements farther from the definition than the rounding of fp32 allows.
  Index wrong(const Result& y, const Tensor<std::int32_t, 2>& chosen) const {
    Index count = 0;
    for (Index t = 0; t < shape.T; ++t)
      for (Index n = 0; n < shape.N; ++n) count += wrong_of(y, t, n, keys_of(chosen, t));
    return count;
  }

 private:
  static std::vector<Index> keys_of(const Tensor<std::int32_t, 2>& chosen, Index t) {
    std::vector<Index> keys;
    for (Index i = 0; i < chosen.shape()[1]; ++i)
      if (chosen(t, i) >= 0) keys.push_back(chosen(t, i));
    return keys;
  }

  Index wrong_of(const Result& y, Index t, Index n, const std::vector<Index>& keys) const {
    if (keys.empty()) {
      Index count = y.lse(t, n) != -std::numeric_limits<float>::infinity();
      for (Index r = 0; r < shape.R; ++r) count += y.out(t, n, r) != 0;
      return count;
    }
    constexpr double u = verify::unit_roundoff_fp32;
    std::vector<double> p;
    double score_error = 0, lowest = infinity(), highest = -infinity();
    for (const Index s : keys) {
      double dot = 0, magnitude = 0;
      for (Index i = 0; i < shape.R + shape.P; ++i) {
        const double term = query(t, n, i) * kv.seen(s, i);
        dot += term, magnitude += std::abs(term);
      }
      p.push_back(scale * dot);
      lowest = std::min(lowest, p.back()), highest = std::max(highest, p.back());
      // A product and its sum round at most twice; the scale is rounded and multiplied.
      score_error =
          std::max(score_error, scale * magnitude * verify::gamma(2 * (shape.R + shape.P) + 2, u));
    }
    double sum = 0;
    for (const double score : p) sum += std::exp(score - highest);
    const double lse = highest + std::log(sum);
    reference::softmax(p.data(), static_cast<Index>(p.size()));

    // A weight is exp of a score less the largest of its chunk, both with their errors and rounded
    // once; exp is good to 2 units, 4u; a chunk is multiplied by another such number when a larger
    // score comes. One of the weights' roundings to bf16 where products are pairs of bf16.
    const Index chunks = static_cast<Index>(keys.size()) / 128 + 2;
    const double weight =
        std::expm1(4 * score_error + 4 * u * (highest - lowest) +
                   verify::gamma(4 * 2 + 4 * chunks + static_cast<Index>(keys.size()), u));
    const double stored_weight = std::is_same_v<T, float> ? 0 : verify::unit_roundoff_bf16;
    Index count = !(std::abs(y.lse(t, n) - lse) <= score_error + weight + 2 * u * std::abs(lse));
    for (Index r = 0; r < shape.R; ++r) {
      double out = 0, magnitude = 0;
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const double term = p[i] * kv.seen(keys[i], r);
        out += term, magnitude += std::abs(term);
      }
      const double roundings =
          verify::gamma(2 * static_cast<Index>(keys.size()) + 3 * chunks + 2, u);
      count +=
          !(std::abs(y.out(t, n, r) - out) <= magnitude * (2 * weight + stored_weight + roundings));
    }
    return count;
  }
  static constexpr double infinity() { return std::numeric_limits<double>::infinity(); }
};

/// K keys a query, some of them -1, at any place; the last query has none.
Tensor<std::int32_t, 2> choose(Index T, Index S, Index K) {
  Tensor<std::int32_t, 2> chosen({T, K}, -1);
  for (Index t = 0; t + 1 < T || (t == 0 && T == 1); ++t) {
    const Index first = t * 7 % 5, step = std::max<Index>(1, S / K);
    for (Index i = 0; i < K; ++i)
      if (i % 9 != 4 + t % 2 && first + i * step < S)
        chosen(t, i) = static_cast<std::int32_t>(first + i * step);
  }
  return chosen;
}

/// The keys of a range, as if chosen.
Tensor<std::int32_t, 2> all_of(const Ranges& visible, Index T, Index S) {
  Tensor<std::int32_t, 2> chosen({T, S}, -1);
  for (Index t = 0; t < T; ++t)
    for (Index s = visible.begin(t); s < visible.end(t); ++s)
      chosen(t, s) = static_cast<std::int32_t>(s);
  return chosen;
}

constexpr Shapes shapes[] = {{5, 40, 3, 24, 6},    {4, 30, 1, 5, 2},      {3, 400, 17, 40, 8},
                             {2, 150, 70, 130, 3}, {3, 300, 16, 512, 64}, {1, 600, 5, 33, 0}};

}  // namespace

TEMPLATE_TEST_CASE("sparse attention is the definition's", "[cpu]", float, bf16, e4m3) {
  for (const cpu::Tier tier : cpu::usable_tiers())
    for (const Shapes shape : shapes) {
      const Problem<TestType> problem(shape, 1);
      for (const Index K : {Index{1}, Index{13}, shape.S}) {
        const auto chosen = choose(shape.T, shape.S, K);
        INFO(name_of(tier) << ", S " << shape.S << ", N " << shape.N << ", R " << shape.R << ", K "
                           << K);
        CHECK(problem.wrong(problem.sparse(tier, chosen), chosen) == 0);
      }
    }
}

TEMPLATE_TEST_CASE("dense attention is the definition's", "[cpu]", float, bf16, e4m3) {
  for (const cpu::Tier tier : cpu::usable_tiers())
    for (Shapes shape : shapes) {
      if (shape.R < 40) shape.T = 21;
      const Problem<TestType> problem(shape, 2);
      for (const Ranges& visible : {ranges(shape.T, shape.S, 8), causal(shape.T, shape.S)}) {
        INFO(name_of(tier) << ", S " << shape.S << ", N " << shape.N << ", R " << shape.R);
        CHECK(problem.wrong(problem.dense(tier, visible), all_of(visible, shape.T, shape.S)) == 0);
      }
    }
}

TEMPLATE_TEST_CASE("attention is the same bits on any pages, by any number of threads", "[cpu]",
                   float, bf16, e4m3) {
  const Index S = 700;
  for (const cpu::Tier tier : cpu::usable_tiers())
    for (const Index T : {1, 2, 10}) {
      const Problem<TestType> problem({T, S, 5, 40, 8}, 3);
      const auto chosen = choose(T, S, 333);
      const Ranges visible = ranges(T, S, 5);
      const Result sparse = problem.sparse(tier, chosen), dense = problem.dense(tier, visible);
      for (const int n : {1, 2, 3})
        for (const Index page_rows : {1, 7, 64}) {
          const SharingThreads threads(n);
          CHECK(problem.sparse(tier, chosen, page_rows) == sparse);
          CHECK(problem.dense(tier, visible, page_rows) == dense);
        }
    }
}

TEMPLATE_TEST_CASE("a query attends alone as among others", "[cpu]", float, bf16, e4m3) {
  const Problem<TestType> all({19, 300, 3, 24, 6}, 4);
  const Ranges visible = causal(19, 300);
  for (const cpu::Tier tier : cpu::usable_tiers()) {
    const Result together = all.dense(tier, visible);
    for (const Index t : {0, 7, 18}) {
      Problem<TestType> one({1, 300, 3, 24, 6}, 4);
      std::copy_n(&all.q(t, 0, 0), one.q.size(), one.q.data());
      const Result alone = one.dense(tier, Ranges({visible.begin(t)}, {visible.end(t)}));
      CHECK(std::equal(alone.out.begin(), alone.out.end(), &together.out(t, 0, 0)));
      CHECK(std::equal(alone.lse.begin(), alone.lse.end(), &together.lse(t, 0)));
    }
  }
}

TEMPLATE_TEST_CASE("a NaN reaches those who look at it, and nobody else", "[cpu]", float, bf16) {
  const Shapes shape{6, 200, 3, 24, 6};
  const Problem<TestType> clean(shape, 5);
  const Ranges visible = causal(shape.T, shape.S);  // key 198 is seen by queries 4 and 5
  Tensor<std::int32_t, 2> chosen({6, 4}, -1);
  for (Index t = 0; t < 6; ++t)
    chosen(t, 1) = static_cast<std::int32_t>(10 + t), chosen(t, 3) = t < 4 ? 197 : 198;
  for (const Index channel : {0, 26}) {
    Problem<TestType> poisoned = clean;
    std::memset(static_cast<void*>(&poisoned.kv.stored(198, channel)), 0xff, sizeof(TestType));
    for (const cpu::Tier tier : cpu::usable_tiers())
      for (const bool sparse : {true, false}) {
        const Result before = sparse ? clean.sparse(tier, chosen) : clean.dense(tier, visible);
        const Result after = sparse ? poisoned.sparse(tier, chosen) : poisoned.dense(tier, visible);
        for (Index t = 0; t < 6; ++t)
          for (Index n = 0; n < 3; ++n) {
            CHECK(std::isnan(after.lse(t, n)) == (t >= 4));
            CHECK(std::isnan(after.out(t, n, 1)) == (t >= 4));
            if (t < 4) CHECK(after.out(t, n, 1) == before.out(t, n, 1));
          }
      }
  }
}

TEST_CASE("a score of -infinity has no weight; scores far apart do not overflow", "[cpu]") {
  Problem<float> problem({1, 300, 1, 4, 0}, 6);
  for (Index s = 0; s < 300; ++s)
    for (Index i = 0; i < 4; ++i) problem.kv.stored(s, i) = i == 0 ? static_cast<float>(s) : 1;
  problem.q(0, 0, 0) = 1000;
  for (const Index i : {1, 2, 3}) problem.q(0, 0, i) = 0;
  const auto chosen = all_of(causal(1, 300), 1, 300);
  for (const cpu::Tier tier : cpu::usable_tiers()) {
    const Result last = problem.sparse(tier, chosen);
    CHECK(last.out(0, 0, 0) == 299);
    CHECK(last.lse(0, 0) == static_cast<float>(static_cast<float>(0.3) * 299000.0f));
    Problem<float> invisible = problem;
    for (Index s = 0; s < 150; ++s)
      invisible.kv.stored(s, 0) = -std::numeric_limits<float>::infinity();
    const Result tail = invisible.sparse(tier, chosen);
    CHECK(tail.lse(0, 0) == last.lse(0, 0));
    CHECK(tail.out(0, 0, 1) == 1);
  }
}

TEST_CASE("what attention is promised is checked", "[cpu]") {
  const Problem<float> problem({2, 10, 1, 4, 2}, 1);
  CHECK_THROWS_WITH(problem.sparse(cpu::Tier::portable, Tensor<std::int32_t, 2>({2, 3}, 10)),
                    "chosen holds key 10, expected -1 to 9");
  CHECK_THROWS_WITH(problem.sparse(cpu::Tier::portable, Tensor<std::int32_t, 2>({1, 3}, 1)),
                    "chosen has shape (1, 3), expected (2, 3)");
  CHECK_THROWS_WITH(problem.dense(cpu::Tier::portable, Ranges({0, -1}, {5, 10})),
                    "query 1 sees keys -1 to 10, expected a range within 0 to 10");
}
