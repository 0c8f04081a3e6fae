// Intervals, exact tests and verdicts on numbers worked by hand.
#include <cmath>
#include <limits>
#include <vector>

#include "core/check.hpp"
#include "experiments/sweep/analysis.hpp"
#include "tests/catch.hpp"
#include "tests/experiments/sweep_helpers.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

Estimate estimate_of(std::vector<double> d) { return estimate(d); }

Estimate interval(double low, double high) { return {3, (low + high) / 2, low, high, 1}; }

Claim claim(const std::string& metric, const std::string& gate) {
  Claim made;
  made.says = "a claim";
  made.metric = metric;
  made.gate = parse_gate(gate, "gate");
  return made;
}

}  // namespace

TEST_CASE("the interval of three differences is that of Student's t", "[sweep]") {
  // mean 2, s = 1, t(0.975, 2) = 4.302653 (any table): half of the width is 4.302653 / sqrt 3.
  const Estimate e = estimate_of({1, 2, 3});
  CHECK(e.n == 3);
  CHECK(e.mean == 2);
  CHECK(e.high - 2 == Approx(4.302653 / std::sqrt(3.0)).epsilon(1e-6));
  CHECK(2 - e.low == Approx(e.high - 2).epsilon(1e-12));
  // Eight: s^2 = 2, t(0.975, 7) = 2.364624.
  const Estimate eight = estimate_of({1, 1, 1, 3, 3, 3, 2, 2});
  const double s = std::sqrt(6.0 / 7);
  CHECK(eight.high - 2 == Approx(2.364624 * s / std::sqrt(8.0)).epsilon(1e-6));
}

TEST_CASE("one difference says nothing, equal ones everything", "[sweep]") {
  const double inf = std::numeric_limits<double>::infinity();
  CHECK(estimate_of({5}).low == -inf);
  CHECK(estimate_of({5}).high == inf);
  CHECK(estimate_of({5, 5}).low == 5);
  CHECK(estimate_of({5, 5}).high == 5);
  CHECK_THROWS_WITH(estimate_of({}), Catch::Contains("no pair of finished runs"));
}

TEST_CASE("the sign-flip test counts choices of signs", "[sweep]") {
  const auto p = [](std::vector<double> d) { return sign_flip_p(d); };
  CHECK(p({1, 2, 3}) == 0.25);  // 6 and -6 of eight sums
  CHECK(p({3, -1, 2}) == 0.5);  // 6, 4, -4 and -6 of eight
  CHECK(p({1, -1}) == 1);       // every sum is at least 0 away
  CHECK(p({7}) == 1);           // two signs, two equal distances
  CHECK(p({0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8}) == 2.0 / 256);
  // 0.1 + 0.2 - 0.3 is not 0 in binary: sums that are equal in decimals count as equal.
  CHECK(p({0.1, 0.2, -0.3}) == 1);
  CHECK(std::isnan(p(std::vector<double>(25, 1.0))));
}

TEST_CASE("the verdict follows from interval and gate", "[sweep]") {
  const Gate least = parse_gate(">= 0.1", "g"), most = parse_gate("<= 0.1", "g"),
             within = parse_gate("within 0.1", "g");
  CHECK(judge(interval(0.1, 0.3), least) == Verdict::holds);
  CHECK(judge(interval(0.05, 0.3), least) == Verdict::cannot_tell);
  CHECK(judge(interval(-0.3, 0.05), least) == Verdict::does_not);
  CHECK(judge(interval(-1, 0.1), most) == Verdict::holds);
  CHECK(judge(interval(0.05, 0.3), most) == Verdict::cannot_tell);
  CHECK(judge(interval(0.2, 0.3), most) == Verdict::does_not);
  CHECK(judge(interval(-0.1, 0.1), within) == Verdict::holds);
  CHECK(judge(interval(-0.2, 0.0), within) == Verdict::cannot_tell);
  CHECK(judge(interval(-0.3, -0.2), within) == Verdict::does_not);
  CHECK(judge(estimate_of({5}), least) == Verdict::cannot_tell);
}

TEST_CASE("a gate that is none is refused", "[sweep]") {
  for (const char* text : {"", ">=", "> 1", ">= one", ">= nan", "within -1", ">= 1 2"}) {
    INFO(text);
    CHECK_THROWS_WITH(parse_gate(text, "the gate"), Catch::StartsWith("the gate is \""));
  }
  CHECK(text_of(parse_gate("<= 0.25", "")) == "<= 0.25");
}

TEST_CASE("runs are compared with the run of the same seed", "[sweep]") {
  Sweep sweep;
  Claim more = claim("r", ">= 0.5");
  more.axis = "topk", more.from = "16", more.to = "32";
  // Seeds differ by 10, and within a seed 32 is better by 1, 2 and 3; seed 3 has no partner.
  const std::vector<Row> rows = {run_of({{"seed", "0"}, {"topk", "16"}}, {{"r", 0}}),
                                 run_of({{"seed", "1"}, {"topk", "16"}}, {{"r", 10}}),
                                 run_of({{"seed", "2"}, {"topk", "16"}}, {{"r", 20}}),
                                 run_of({{"seed", "0"}, {"topk", "32"}}, {{"r", 1}}),
                                 run_of({{"seed", "1"}, {"topk", "32"}}, {{"r", 12}}),
                                 run_of({{"seed", "2"}, {"topk", "32"}}, {{"r", 23}}),
                                 run_of({{"seed", "3"}, {"topk", "32"}}, {{"r", 99}})};
  const Finding finding = examine(sweep, more, rows);
  REQUIRE(finding.pairs.size() == 3);
  CHECK(finding.estimate.mean == 2);
  CHECK(finding.estimate.p == 0.25);
  CHECK(finding.verdict == Verdict::cannot_tell);
  CHECK(finding.note == "with 3 pairs the exact test cannot reach p < 0.25");
}

TEST_CASE("ratios, levels and exponents of runs", "[sweep]") {
  Sweep sweep;
  std::vector<Row> rows;
  for (const char* seed : {"0", "1"})
    for (const int context : {256, 512, 1024}) {
      const double s = context;
      rows.push_back(run_of({{"seed", seed}, {"context", std::to_string(context)}},
                            {{"time", s * s}, {"other", s}}));
    }
  Claim growth = claim("time", "within 2.5");
  growth.axis = "context", growth.growth = true;
  CHECK(examine(sweep, growth, rows).estimate.mean == Approx(2).epsilon(1e-12));
  Claim ratio = claim("time", ">= 3.9");
  ratio.axis = "context", ratio.from = "256", ratio.to = "512", ratio.ratio = true;
  CHECK(examine(sweep, ratio, rows).estimate.mean == Approx(4).epsilon(1e-12));
  CHECK(examine(sweep, ratio, rows).verdict == Verdict::holds);
  Claim level = claim("time", "<= 0");
  level.minus = "other", level.where = {{"context", "256"}};
  CHECK(examine(sweep, level, rows).estimate.mean == 256 * 255);
  CHECK(examine(sweep, level, rows).verdict == Verdict::does_not);
  const Finding none = examine(sweep, claim("nowhere", ">= 0"), rows);
  CHECK(none.verdict == Verdict::cannot_tell);
  CHECK(none.note == "no finished run has what the claim compares");
}

TEST_CASE("a seed that lacks a run is left out of means over conditions", "[sweep]") {
  Sweep sweep;
  std::vector<Row> rows;
  for (const char* seed : {"0", "1", "2"})
    for (const char* topk : {"16", "32"})
      rows.push_back(run_of({{"seed", seed}, {"topk", topk}}, {{"r", topk[0] == '1' ? 1.0 : 3.0}}));
  CHECK(examine(sweep, claim("r", "within 2"), rows).estimate.high == 2);
  rows.pop_back();
  const Finding finding = examine(sweep, claim("r", "within 2"), rows);
  CHECK(finding.pairs.size() == 2);
  CHECK(finding.estimate.mean == 2);
  CHECK_THAT(finding.note,
             Catch::EndsWith("1 of 3 seeds left out, for not all their runs finished"));
}

TEST_CASE("runs that failed say nothing", "[sweep]") {
  Row failed = run_of({{"seed", "0"}}, {{"r", 1}});
  failed.done = false;
  CHECK(examine({}, claim("r", ">= 0"), {failed}).pairs.empty());
}
