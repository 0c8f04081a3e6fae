// The indexer and the selection of the CPU backend: every tier, every format of keys.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "optimized/cpu/ops/indexer_topk.hpp"
#include "optimized/cpu/ops/topk_select.hpp"
#include "reference/ops/indexer_scores.hpp"
#include "reference/ops/topk_select.hpp"
#include "tests/catch.hpp"
#include "tests/cpu/caches.hpp"
#include "verify/measure/bounds.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

/// Index keys of e4m3 with a scale of their own.
template <class T>
CacheRows<T> index_keys(const Tensor<float, 2>& x) {
  if constexpr (!std::is_same_v<T, e4m3>) {
    return rows_of<T>(x);
  } else {
    const Index S = x.shape()[0], D = x.shape()[1];
    CacheRows<T> rows{Tensor<T, 2>({S, fp8_index_bytes(D)}), Tensor<double, 2>({S, D})};
    for (Index s = 0; s < S; ++s) {
      const float scale = 0.01f * static_cast<float>(s % 7 + 1);
      for (Index d = 0; d < D; ++d) {
        rows.stored(s, d) = to_e4m3(x(s, d) * 40);
        rows.seen(s, d) = number(rows.stored(s, d)) * static_cast<double>(scale);
      }
      std::memcpy(static_cast<void*>(&rows.stored(s, D)), &scale, 4);
    }
    return rows;
  }
}

template <class T>
T stored_as(float x) {
  if constexpr (std::is_same_v<T, e4m3>)
    return to_e4m3(x);
  else if constexpr (std::is_same_v<T, bf16>)
    return to_bf16(x);
  else
    return x;
}

struct Shapes {
  Index T, S, H, D;
};

template <class T>
struct Problem {
  Shapes shape;
  Tensor<T, 3> q;
  CacheRows<T> k;
  Tensor<float, 2> w;

  Problem(Shapes s, const Tensor<float, 3>& queries, const Tensor<float, 2>& keys,
          const Tensor<float, 2>& weights)
      : shape(s), q(queries.shape()), k(index_keys<T>(keys)), w(weights) {
    std::transform(queries.begin(), queries.end(), q.begin(), stored_as<T>);
  }
  Problem(Shapes s, std::uint64_t seed)
      : Problem(s, draw<3>({s.T, s.H, s.D}, seed), draw<2>({s.S, s.D}, seed + 1),
                draw<2>({s.T, s.H}, seed + 2)) {}

  Tensor<float, 2> scores(cpu::Tier tier, const Ranges& visible, bool relu = true,
                          Index page_rows = 1000) const {
    Tensor<float, 2> y({shape.T, shape.S}, 99);
    ScratchMemory scratch(cpu::indexer_scores_scratch(shape.H, shape.D));
    const Paged<T> cache(k.stored, page_rows);
    cpu::indexer_scores<T>({tier}, y.view(),
                           {.q = q, .k = cache, .w = w, .relu = relu, .visible = visible}, scratch);
    return y;
  }
  Tensor<std::int32_t, 2> topk(cpu::Tier tier, Index K, const Ranges& visible,
                               Index page_rows = 1000) const {
    Tensor<std::int32_t, 2> chosen({shape.T, K}, 99);
    ScratchMemory scratch(cpu::indexer_topk_scratch(shape.H, shape.D, K));
    const Paged<T> cache(k.stored, page_rows);
    cpu::indexer_topk<T>({tier}, chosen.view(),
                         {.q = q, .k = cache, .w = w, .relu = true, .visible = visible}, scratch);
    return chosen;
  }

  /// The definition, of the numbers themselves or of their magnitudes.
  Tensor<double, 2> expected(bool relu, bool magnitudes) const {
    const auto number_of = [&](auto x) { return magnitudes ? std::abs(number(x)) : number(x); };
    Tensor<double, 3> queries(q.shape());
    Tensor<double, 2> keys(k.seen.shape()), weights(w.shape()), y({shape.T, shape.S});
    std::transform(q.begin(), q.end(), queries.begin(), number_of);
    std::transform(w.begin(), w.end(), weights.begin(), number_of);
    std::transform(k.seen.begin(), k.seen.end(), keys.begin(),
                   [&](double x) { return magnitudes ? std::abs(x) : x; });
    Indexer indexer;
    indexer.activation = relu ? Indexer::Activation::relu : Indexer::Activation::none;
    const std::vector<Index> one_document(static_cast<std::size_t>(shape.S + shape.T), 0);
    reference::indexer_scores<double>(y, queries, keys, weights, indexer, {shape.S, one_document});
    return y;
  }
};

/// A product and its sum round at most twice: D in a dot product, H over the heads, and the scale.
template <class T>
void check_scores(cpu::Tier tier, Shapes shape, bool relu) {
  const Problem<T> problem(shape, 7);
  const Ranges visible = ranges(shape.T, shape.S, 3);
  const Tensor<float, 2> scores = problem.scores(tier, visible, relu);
  const auto expected = problem.expected(relu, false), magnitude = problem.expected(relu, true);
  const double bound = verify::gamma(2 * shape.D + 2 * shape.H + 1, verify::unit_roundoff_fp32);
  Index wrong = 0;
  for (Index t = 0; t < shape.T; ++t)
    for (Index s = 0; s < shape.S; ++s)
      if (visible.begin(t) <= s && s < visible.end(t))
        wrong += !(std::abs(scores(t, s) - expected(t, s)) <= bound * magnitude(t, s));
      else
        wrong += scores(t, s) != -std::numeric_limits<float>::infinity();
  INFO(name_of(tier) << ", T " << shape.T << ", S " << shape.S << ", H " << shape.H << ", D "
                     << shape.D << ", relu " << relu);
  CHECK(wrong == 0);
}

/// The selection by the definition, in ascending order.
Tensor<std::int32_t, 2> selected(const Tensor<float, 2>& scores, Index K) {
  const Index T = scores.shape()[0];
  Tensor<double, 2> wide(scores.shape());
  std::copy(scores.begin(), scores.end(), wide.begin());
  Tensor<Index, 2> best_first({T, K});
  reference::topk_select<double>(best_first, wide);
  Tensor<std::int32_t, 2> chosen({T, K});
  std::copy(best_first.begin(), best_first.end(), chosen.begin());
  for (Index t = 0; t < T; ++t) {
    std::int32_t* const row = &chosen(t, 0);
    std::sort(row, std::find(row, row + K, -1));
  }
  return chosen;
}

Tensor<std::int32_t, 2> topk(cpu::Tier tier, const Tensor<float, 2>& scores, Index K) {
  Tensor<std::int32_t, 2> chosen({scores.shape()[0], K}, 99);
  ScratchMemory scratch(cpu::topk_select_scratch(scores.shape()[1], K));
  cpu::topk_select({tier}, chosen, scores, scratch);
  return chosen;
}

void check_selection(const Tensor<float, 2>& scores, Index K) {
  const auto expected = selected(scores, K);
  for (const cpu::Tier tier : cpu::usable_tiers()) {
    INFO(name_of(tier) << ", K " << K);
    CHECK(same_bits(topk(tier, scores, K), expected));
  }
}

template <class F>
Tensor<float, 2> scores_of(Index T, Index S, F f) {
  Tensor<float, 2> scores({T, S});
  for (Index t = 0; t < T; ++t)
    for (Index s = 0; s < S; ++s) scores(t, s) = static_cast<float>(f(t, s));
  return scores;
}

}  // namespace

TEMPLATE_TEST_CASE("index scores are the definition's", "[cpu]", float, bf16, e4m3) {
  for (const cpu::Tier tier : cpu::usable_tiers())
    for (const bool relu : {true, false})
      for (const Shapes shape : {Shapes{6, 50, 3, 5},
                                 {5, 97, 9, 24},
                                 {40, 130, 16, 32},
                                 {3, 100, 64, 128},
                                 {1, 1, 1, 1},
                                 {2, 0, 2, 4}})
        check_scores<TestType>(tier, shape, relu);
}

TEMPLATE_TEST_CASE("a score is the same bits on any pages, in any company", "[cpu]", float, bf16,
                   e4m3) {
  const Problem<TestType> problem({37, 150, 5, 20}, 11);
  const Ranges visible = ranges(37, 150, 4);
  for (const cpu::Tier tier : cpu::usable_tiers()) {
    const auto scores = problem.scores(tier, visible);
    for (const Index page_rows : {1, 7, 64})
      CHECK(same_bits(problem.scores(tier, visible, true, page_rows), scores));
    const auto alone = problem.scores(tier, causal(37, 150));
    for (Index t = 0; t < 37; ++t)
      for (Index s = visible.begin(t); s < std::min<Index>(visible.end(t), 114 + t); ++s)
        CHECK(scores(t, s) == alone(t, s));
  }
}

TEMPLATE_TEST_CASE("the indexer chooses what its scores say", "[cpu]", float, bf16, e4m3) {
  for (const cpu::Tier tier : cpu::usable_tiers())
    for (const Index T : {1, 3, 40}) {
      const Problem<TestType> problem({T, 400, 3, 8}, 5);
      const Ranges visible = ranges(T, 400, 9);
      const auto scores = problem.scores(tier, visible);
      for (const Index K : {1, 2, 33, 200, 399, 400, 500}) {
        const auto expected = selected(scores, K);
        for (const int n : {1, 2, 3}) {
          const SharingThreads threads(n);
          INFO(name_of(tier) << ", T " << T << ", K " << K << ", threads " << n);
          CHECK(same_bits(problem.topk(tier, K, visible, n == 2 ? 7 : 64), expected));
        }
      }
    }
}

TEST_CASE("the indexer breaks ties by the lower index", "[cpu]") {
  const Shapes shape{4, 900, 2, 4};
  Tensor<float, 3> q({4, 2, 4}, 1);
  Tensor<float, 2> k({900, 4}), w({4, 2}, 1);
  for (Index s = 0; s < 900; ++s) k(s, 0) = static_cast<float>(s % 3) - 1;  // relu: 0, 0, 2
  const Problem<bf16> problem(shape, q, k, w);
  for (const cpu::Tier tier : cpu::usable_tiers())
    for (const Index K : {1, 100, 300, 301, 600, 899})
      CHECK(same_bits(problem.topk(tier, K, causal(4, 900)),
                      selected(problem.scores(tier, causal(4, 900)), K)));
}

TEMPLATE_TEST_CASE("the indexer names a score that is NaN, and only where it looks", "[cpu]", float,
                   bf16) {
  Problem<TestType> problem({3, 200, 2, 4}, 1);
  std::memset(static_cast<void*>(&problem.k.stored(150, 1)), 0xff, sizeof(TestType));
  const Ranges causally({0, 0, 0}, {100, 150, 200}), none({0, 0, 151}, {100, 150, 200});
  for (const cpu::Tier tier : cpu::usable_tiers()) {
    CHECK_THROWS_WITH(problem.topk(tier, 8, causally),
                      "the score of query 2 and key 150 is NaN: there is no order to select by");
    CHECK(std::isnan(problem.scores(tier, causally)(2, 150)));
    CHECK_NOTHROW(problem.topk(tier, 8, none));
    CHECK_NOTHROW(problem.topk(tier, 200, causally));  // nothing to select among: nothing scored
  }
}

TEST_CASE("what the indexer is promised is checked", "[cpu]") {
  const Problem<float> problem({2, 10, 2, 4}, 1);
  CHECK_THROWS_WITH(problem.topk(cpu::Tier::portable, 3, Ranges({0, 0}, {5, 11})),
                    "query 1 sees keys 0 to 11, expected a range within 0 to 10");
  CHECK_THROWS_WITH(problem.topk(cpu::Tier::portable, 3, Ranges({0}, {5})),
                    "begin has shape (1), expected (2)");
}

TEST_CASE("the K largest, whatever the order they come in", "[cpu]") {
  const Index S = 3000;
  const auto random = draw<2>({3, S}, 1);
  const auto rising = scores_of(2, S, [](Index, Index s) { return s; });
  const auto falling = scores_of(2, S, [](Index, Index s) { return -s; });
  const auto equal = scores_of(2, S, [](Index, Index s) { return s % 2 ? 0.0 : -0.0; });
  const auto few = scores_of(3, S, [](Index t, Index s) {
    return random_bits(static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(s)) % 3;
  });
  const auto waves = scores_of(2, S, [](Index, Index s) { return s % 500 - s / 700; });
  for (const auto& scores : {random, rising, falling, equal, few, waves})
    for (const Index K : {1, 2, 63, 64, 1000, 2999, 3000, 3001}) check_selection(scores, K);
}

TEST_CASE("the K largest of every bit pattern, and of what is invisible", "[cpu]") {
  auto scores = scores_of(4, 1500, [](Index t, Index s) {
    const auto bits = static_cast<std::uint32_t>(
        random_bits(static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(s)));
    float x;
    std::memcpy(&x, &bits, 4);
    return std::isnan(x) ? -std::numeric_limits<float>::infinity() : x;
  });
  scores(0, 3) = scores(0, 1400) = std::numeric_limits<float>::infinity();
  for (Index s = 0; s < 1500; ++s) {
    scores(2, s) = -std::numeric_limits<float>::infinity();
    if (s % 4) scores(3, s) = -std::numeric_limits<float>::infinity();
  }
  for (const Index K : {1, 2, 300, 375, 376, 1500}) check_selection(scores, K);
}

TEST_CASE("a selection does not depend on the number of threads", "[cpu]") {
  for (const Index T : {1, 2, 50}) {
    const auto scores = scores_of(T, 2000, [](Index t, Index s) { return (s * 7 + t) % 50; });
    for (const int n : {1, 2, 3}) {
      const SharingThreads threads(n);
      check_selection(scores, 77);
    }
  }
}

TEST_CASE("a selection names the score that is NaN", "[cpu]") {
  auto scores = draw<2>({2, 500}, 1);
  scores(1, 437) = -std::numeric_limits<float>::quiet_NaN();
  for (const cpu::Tier tier : cpu::usable_tiers())
    CHECK_THROWS_WITH(topk(tier, scores, 5),
                      "score (1, 437) is NaN: there is no order to select by");
}
