// tests/verify/parts_test.cpp — the judge's own arithmetic: divergence, decisions, quantiles and
// the conclusion drawn from them. Everything else that is judged stands on this.
#include <cmath>
#include <limits>
#include <vector>

#include "core/random.hpp"
#include "tests/catch.hpp"
#include "verify/measure/bounds.hpp"
#include "verify/measure/divergence.hpp"
#include "verify/measure/selection.hpp"
#include "verify/measure/stats.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::verify;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
using Row = std::vector<double>;

View<const double, 1> view(const Row& x) { return {x.data(), {static_cast<Index>(x.size())}}; }

double kl(const Row& want, const Row& got) { return kl_divergence(view(want), view(got)); }

Row random_row(std::uint64_t seed, Index V, double scale) {
  Row x(static_cast<std::size_t>(V));
  for (Index v = 0; v < V; ++v)
    x[static_cast<std::size_t>(v)] = scale * gaussian(seed, static_cast<std::uint64_t>(v));
  return x;
}

Row plus(Row x, double c) {
  for (double& value : x) value += c;
  return x;
}

std::vector<long double> log_softmax(const Row& x) {
  long double sum = 0;
  for (double value : x) sum += std::exp(static_cast<long double>(value));
  std::vector<long double> y;
  for (double value : x) y.push_back(value - std::log(sum));
  return y;
}

/// sum p (log p - log q), as a textbook has it.
long double textbook(const Row& want, const Row& got) {
  const auto p = log_softmax(want), q = log_softmax(got);
  long double sum = 0;
  for (std::size_t v = 0; v < p.size(); ++v) sum += std::exp(p[v]) * (p[v] - q[v]);
  return sum;
}

/// The first term in d of KL: sum p (d - mean)^2 / 2, mean = sum p d.
long double quadratic(const Row& want, const Row& got) {
  const auto p = log_softmax(want);
  long double mean = 0, sum = 0;
  for (std::size_t v = 0; v < p.size(); ++v)
    mean += std::exp(p[v]) * (static_cast<long double>(got[v]) - want[v]);
  for (std::size_t v = 0; v < p.size(); ++v) {
    const long double d = static_cast<long double>(got[v]) - want[v] - mean;
    sum += std::exp(p[v]) * d * d / 2;
  }
  return sum;
}

bool explained(const std::vector<Index>& chosen, const Row& scores, const Row& allowed, Index K) {
  return is_explained(chosen, view(scores), view(allowed), K);
}

double margin_of(const Row& scores, const std::vector<Index>& chosen) {
  return margin(view(scores), {chosen.data(), {static_cast<Index>(chosen.size())}});
}

}  // namespace

TEST_CASE("KL is the textbook's where the textbook can be computed", "[judge]") {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Index V = 2 + static_cast<Index>(random_bits(seed, 0) % 300);
    const double apart = std::pow(10.0, -3 + static_cast<double>(seed % 5));  // 1e-3 .. 10
    const Row want = random_row(2 * seed, V, 3), noise = random_row(2 * seed + 1, V, apart);
    Row got = want;
    for (std::size_t v = 0; v < got.size(); ++v) got[v] += noise[v];
    const auto expected = static_cast<double>(textbook(want, got));
    CAPTURE(V, apart);
    CHECK(kl(want, got) == Approx(expected).epsilon(1e-9));
  }
  const double ln3 = std::log(3.0);
  CHECK(kl({0, 0}, {0, ln3}) == Approx(0.5 * std::log(4.0 / 3)).epsilon(1e-14));
}

TEST_CASE("KL of tiny differences is their quadratic form", "[judge]") {
  for (const double apart : {1e-6, 1e-8, 1e-10, 1e-12}) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      const Row want = random_row(seed, 100, 1), noise = random_row(1000 + seed, 100, apart);
      Row got = want;
      for (std::size_t v = 0; v < got.size(); ++v) got[v] += noise[v];
      const auto expected = static_cast<double>(quadratic(want, got));
      CAPTURE(apart, seed);
      // The next term of the series is of relative size `apart`.
      const double rounding = kl_rounding({want.data(), {static_cast<Index>(want.size())}});
      CHECK(std::abs(kl(want, got) - expected) <= rounding + 4 * apart * expected);
    }
  }
}

TEST_CASE("KL is 0 for equal rows, never negative, and NaN if a side is not finite", "[judge]") {
  const Row x = random_row(1, 50, 4);
  CHECK(kl(x, x) == 0);
  CHECK(kl({5}, {-7}) == 0);
  for (std::uint64_t seed = 0; seed < 100; ++seed)
    CHECK(kl(random_row(seed, 9, 30), random_row(seed + 1, 9, 30)) >= 0);
  for (const double bad : {not_a_number, inf, -inf}) {
    Row y = x;
    y[17] = bad;
    CHECK(std::isnan(kl(x, y)));
    CHECK(std::isnan(kl(y, x)));
    CHECK(std::isnan(kl(y, y)));
  }
  CHECK_THROWS_WITH(kl({1, 2}, {1, 2, 3}), Contains("(3)") && Contains("(2)"));
}

TEST_CASE("KL does not see a constant, and kl_rounding bounds what it reports for one", "[judge]") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const Row x = random_row(seed, 1 + static_cast<Index>(random_bits(seed, 7) % 400), 2);
    const double c = std::pow(10.0, static_cast<double>(seed % 6) - 2) * (seed % 2 ? 1 : -1);
    const Row y = plus(x, c);
    const double bound = std::max(kl_rounding(view(x)), kl_rounding(view(y)));
    CAPTURE(seed, c, x.size());
    CHECK(kl(x, y) <= bound);
    CHECK(kl(y, x) <= bound);
    CHECK(bound < 1e-18);  // and says something
  }
  const Row a = random_row(1, 80, 2), b = random_row(2, 80, 2);
  CHECK(kl(plus(a, 3), plus(b, -40)) == Approx(kl(a, b)).epsilon(1e-12));
}

TEST_CASE("gamma(n) is n u / (1 - n u)", "[judge]") {
  CHECK(gamma(0, unit_roundoff_fp64) == 0);
  CHECK(dsa::verify::gamma(1, 0.25) == 0.25 / 0.75);
  CHECK(dsa::verify::gamma(100, unit_roundoff_fp32) > 100 * unit_roundoff_fp32);
}

TEST_CASE("metrics of two rows, by hand", "[judge]") {
  const double ln3 = std::log(3.0);
  const Row want0 = {0, 0}, got0 = {0, ln3}, want1 = {1, 0}, got1 = {1, 0};
  const std::vector<LogitsRow> rows = {{{0, 4, -1}, view(want0), view(got0), 8, 1},
                                       {{1, 6, -1}, view(want1), view(got1), 9, -1}};
  const LogitsMetrics m = measure(rows);
  CHECK(m.rows == 2);
  CHECK(m.wrong_kind == 0);
  CHECK(m.max_abs == ln3);
  CHECK(m.max_abs_at.sequence == 0);
  CHECK(m.max_abs_at.position == 4);
  CHECK(m.max_abs_at.channel == 1);
  CHECK(m.nmse == Approx(ln3 * ln3 / 0.75));  // 0, 0, 1, 0 about their mean
  CHECK(m.kl_max == Approx(0.5 * std::log(4.0 / 3)));
  CHECK(m.kl_mean == Approx(0.25 * std::log(4.0 / 3)));
  CHECK(m.kl_max_at.position == 4);
  CHECK(m.kl_max_token == 8);
  CHECK(m.top1 == 0.5);  // of two equal logits the first is the largest
  CHECK(m.top10_overlap == 1);
  CHECK(m.jaccard == 1);
  CHECK(m.rank_agreement == 0.5);
  REQUIRE(m.perplexity_want);
  CHECK(*m.perplexity_want == Approx(2));
  CHECK(*m.perplexity_got == Approx(4.0 / 3));
  CHECK(!measure(std::span(rows).subspan(1)).perplexity_want);
}

TEST_CASE("MaxText's three on the ten largest", "[judge]") {
  Row want, got;
  for (int v = 0; v < 12; ++v) want.push_back(-v);
  got = want;
  std::swap(got[2], got[3]);   // two of ten out of place
  std::swap(got[9], got[11]);  // one leaves the ten
  const std::vector<LogitsRow> rows = {{{0, 0, -1}, view(want), view(got), 0, -1}};
  const LogitsMetrics m = measure(rows);
  CHECK(m.top1 == 1);
  CHECK(m.top10_overlap == Approx(0.9));
  CHECK(m.jaccard == Approx(9.0 / 11));
  CHECK(m.rank_agreement == Approx(0.7));
}

TEST_CASE("metrics count wrong kinds, and a NaN stays the largest KL", "[judge]") {
  const Row fine = {1, 2, 3}, off = {1, 2, 4}, broken = {not_a_number, 2, 3};
  const Row infinite = {inf, -inf, 3}, same = {inf, inf, 3};
  const auto rows_of = [&](const Row& want, const Row& got, Index at) {
    return LogitsRow{{0, at, -1}, view(want), view(got), 5 + at, 0};
  };
  const std::vector<LogitsRow> kinds = {rows_of(fine, broken, 0), rows_of(infinite, same, 1)};
  CHECK(measure(kinds).wrong_kind == 2);  // the NaN; -inf against inf. inf against inf is right
  const std::vector<LogitsRow> both = {rows_of(broken, broken, 0)};
  CHECK(measure(both).wrong_kind == 1);  // NaN equals nothing

  const std::vector<LogitsRow> first = {rows_of(fine, broken, 0), rows_of(fine, off, 1)};
  const std::vector<LogitsRow> last = {rows_of(fine, off, 0), rows_of(fine, broken, 1)};
  for (const auto& rows : {first, last}) {
    const LogitsMetrics m = measure(rows);
    CHECK(std::isnan(m.kl_max));
    CHECK(std::isnan(m.kl_mean));
  }
  CHECK(measure(first).kl_max_at.position == 0);
  CHECK(measure(last).kl_max_at.position == 1);
  CHECK(measure({}).rows == 0);
}

TEST_CASE("a selection of the right shape", "[judge]") {
  const Row scores = {3, -inf, 1, 2, -inf, 0};
  const auto wellformed = [&](const std::vector<Index>& chosen, Index K) {
    return is_wellformed(chosen, view(scores), K);
  };
  CHECK(wellformed({0, 3}, 2));
  CHECK(wellformed({5, 2}, 2));  // any keys, whatever the scores
  CHECK(wellformed({0, 2, 3, 5}, 4));
  CHECK(wellformed({5, 3, 2, 0}, 9));  // only four are visible
  CHECK(!wellformed({0}, 2));
  CHECK(!wellformed({0, 2, 3}, 2));
  CHECK(!wellformed({0, 0}, 2));
  CHECK(!wellformed({0, 6}, 2));
  CHECK(!wellformed({-1, 0}, 2));
  CHECK(!wellformed({0, 1}, 2));  // invisible
  CHECK(!wellformed({0, 1, 2, 3, 5}, 5));
  CHECK(!wellformed({}, 2));
  CHECK(is_wellformed({}, view({-inf, -inf}), 2));  // nothing to choose from
}

TEST_CASE("a selection is explained by scores within their bounds, and by nothing else",
          "[judge]") {
  const Row exact(6, 0.0);
  const Row scores = {3, 1, 2, 2, -inf, 0};
  CHECK(explained({0, 2}, scores, exact, 2));
  CHECK(explained({3, 0}, scores, exact, 2));  // the tie, the other way
  CHECK(explained({0, 2, 3}, scores, exact, 3));
  CHECK(!explained({0, 1}, scores, exact, 2));
  CHECK(!explained({2, 3}, scores, exact, 2));
  CHECK(!explained({0}, scores, exact, 2));        // one short
  CHECK(!explained({0, 0}, scores, exact, 2));     // twice the same
  CHECK(!explained({0, 17}, scores, exact, 2));    // out of range
  CHECK(!explained({0, -1}, scores, exact, 2));    // out of range
  CHECK(!explained({0, 4}, scores, exact, 2));     // not visible
  CHECK(!explained({0, 2, 3}, scores, exact, 2));  // one too many
  CHECK(explained({0, 1, 2, 3, 5}, scores, exact, 6));
  CHECK(!explained({0, 1, 2, 3, 4, 5}, scores, exact, 6));

  const Row near = {3, 1, 2, 2.5, -inf, 0};
  CHECK(!explained({0, 2}, near, exact, 2));
  CHECK(explained({0, 2}, near, Row(6, 0.25), 2));  // exactly at the bound
  CHECK(!explained({0, 2}, near, Row(6, 0.249), 2));
  CHECK(explained({0, 2}, near, {0, 0, 0.5, 0, 0, 0}, 2));  // the chosen one's bound alone
  CHECK(explained({0, 2}, near, {0, 0, 0, 0.5, 0, 0}, 2));  // the rejected one's alone
  CHECK(!explained({0, 2}, near, {9, 9, 0, 0, 9, 9}, 2));   // bounds of other keys do not help
  CHECK(explained({0, 5}, near, {0, 9, 9, 9, 9, 0}, 2));    // all others may have sunk
}

TEST_CASE("a top-k is judged with its reason, and with the rule for ties if there is one",
          "[judge]") {
  const Row scores = {3, 1, 2, 2, -inf, 0}, exact(6, 0.0);
  const auto judged = [&](const std::vector<Index>& chosen, Index K, Ties ties) {
    return judge_topk(chosen, view(scores), view(exact), K, ties);
  };
  for (const Ties ties : {Ties::free, Ties::lower_first}) {
    CHECK(judged({2, 0}, 2, ties).ratio == 0);
    CHECK(judged({0, 2, 3}, 3, ties).ok());
    CHECK(judged({0, 1, 2, 3, 5}, 6, ties).ok());
    CHECK(judged({0, 0}, 2, ties).why == "0 was chosen twice");
    CHECK(judged({0, 6}, 2, ties).why == "6 is no subscript below 6");
    CHECK(judged({0, 4}, 2, ties).why == "4 is invisible");
    CHECK(judged({0}, 2, ties).why == "1 were chosen, expected 2");
    CHECK(judged({0, 1}, 2, ties).ratio == inf);
    CHECK_THAT(judged({0, 1}, 2, ties).why, Contains("1 was chosen") && Contains("instead of 2"));
  }
  CHECK(judged({0, 3}, 2, Ties::free).ok());
  CHECK(!judged({0, 3}, 2, Ties::lower_first).ok());
  const Row near = {3, 1, 2, 2.5}, allowed(4, 0.5);
  CHECK(judge_topk({0, 2}, view(near), view(allowed), 2, Ties::lower_first).ratio == 0.5);
  CHECK(judge_topk({0, 1}, view(near), view(allowed), 2, Ties::free).ratio == 1.5);
}

TEST_CASE("NaN in a score or a bound explains nothing", "[judge]") {
  const Row scores = {3, 1, 2}, allowed = {9, 9, 9};
  CHECK(explained({0, 2}, scores, allowed, 2));
  for (std::size_t i = 0; i < 3; ++i)
    for (const double bad : {not_a_number, inf, -inf}) {
      Row spoiled = allowed;
      spoiled[i] = bad;
      CHECK(!explained({0, 2}, scores, spoiled, 2));
      spoiled = scores;
      spoiled[i] = not_a_number;
      CHECK(!explained({0, 2}, spoiled, allowed, 2));
    }
}

TEST_CASE("margin, sorted_set and jaccard", "[judge]") {
  CHECK(margin_of({3, 1, 2}, {0, 2}) == 1);
  CHECK(margin_of({3, 2, 2}, {0, 1}) == 0);
  CHECK(margin_of({3, 1, 2}, {0, 1}) == -1);  // not the best two
  CHECK(margin_of({3, 1, -inf}, {1, 0, -1}) == inf);
  CHECK(margin_of({3, 1, 2}, {0, 1, 2}) == inf);
  const std::vector<Index> chosen = {4, 0, 2, -1, -1};
  CHECK(sorted_set({chosen.data(), {5}}) == std::vector<Index>{0, 2, 4});
  CHECK(jaccard({}, {}) == 1);
  CHECK(jaccard({1, 2}, {1, 2}) == 1);
  CHECK(jaccard({1, 2}, {2, 3}) == Approx(1.0 / 3));
  CHECK(jaccard({1}, {}) == 0);
}

TEST_CASE("quantiles are those of printed tables", "[judge]") {
  CHECK(student_quantile(1, 0.025) == Approx(12.706).epsilon(1e-4));
  CHECK(student_quantile(10, 0.025) == Approx(2.228).epsilon(2e-4));
  CHECK(student_quantile(5, 0.005) == Approx(4.032).epsilon(2e-4));
  CHECK(student_quantile(8, 0.0005) == Approx(5.041).epsilon(2e-4));
  CHECK(student_quantile(1e6, 0.025) == Approx(1.95996).epsilon(1e-5));
  CHECK(fisher_quantile(1, 1, 0.05) == Approx(161.45).epsilon(1e-4));
  CHECK(fisher_quantile(5, 10, 0.05) == Approx(3.326).epsilon(2e-4));
  CHECK(fisher_quantile(2, 20, 0.01) == Approx(5.849).epsilon(2e-4));
  CHECK(fisher_quantile(3, 12, 0.001) == Approx(10.80).epsilon(1e-3));
  // t^2 with n degrees of freedom is F with (1, n).
  CHECK(std::pow(student_quantile(7, 0.01), 2) == Approx(fisher_quantile(1, 7, 0.02)));
}
