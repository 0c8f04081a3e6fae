// The judge of kernels is judged: each row is a way to be wrong that some well-known comparator has
// let through.
#include "verify/measure/compare.hpp"

#include <cmath>
#include <functional>
#include <limits>

#include "core/random.hpp"
#include "tests/catch.hpp"

using namespace dsa;
using verify::Check;
using verify::compare;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr Index rows = 64, columns = 256;

/// A result (64, 256), masked from column 201 on, after a corruption.
Check after(const std::function<void(View<double, 2>)>& corrupt) {
  Tensor<double, 2> got({rows, columns});
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c)
      got(r, c) = c > 200 ? -inf : gaussian(3, static_cast<std::uint64_t>(r * columns + c));
  const Tensor<double, 2> want = got, allowed(got.shape(), 1e-6);
  corrupt(got);
  const auto all = [](const Tensor<double, 2>& x) {
    return std::span(x.data(), static_cast<std::size_t>(x.size()));
  };
  return compare(all(got), all(want), all(allowed));
}

}  // namespace

TEST_CASE("the judge accepts what is right, and what is within its bounds", "[compare][judge]") {
  CHECK(after([](auto) {}).ok());
  CHECK(after([](auto x) { x(3, 4) += 0.99e-6; }).ok());
  CHECK_FALSE(after([](auto x) { x(3, 4) += 1.01e-6; }).ok());
}

TEST_CASE("the judge rejects every corruption", "[compare][judge]") {
  const auto each = [](auto f) {
    return [=](View<double, 2> x) {
      for (double& v : x) f(v);
    };
  };
  CHECK_FALSE(after([](auto x) { x(3, 4) = NAN; }).ok());
  CHECK_FALSE(after([](auto x) { x(3, 4) = inf; }).ok());
  CHECK_FALSE(after([](auto x) { x(3, 4) = -x(3, 4); }).ok());
  CHECK_FALSE(after([](auto x) { x(3, 4) *= 2; }).ok());
  CHECK_FALSE(after(each([](double& v) {
                if (v < 0) v *= 1.5;
              })).ok());
  CHECK_FALSE(after([](auto x) { std::fill_n(x[7].data, 200, 0.0); }).ok());
  CHECK_FALSE(after(each([](double& v) { v *= 1.001; })).ok());
  CHECK_FALSE(after([](auto x) { x(5, 255) = 0; }).ok());       // a mask leaks
  CHECK_FALSE(after([](auto x) { x(5, 255) = inf; }).ok());     // the other infinity
  CHECK_FALSE(after([](auto x) { x(5, 255) = -1e308; }).ok());  // a large number in its place
  CHECK_FALSE(after([](auto x) { x(5, 5) = -inf; }).ok());      // a mask grows
  CHECK_FALSE(after([](auto x) { std::copy_n(x[9].data, 100, x[9].data + 1); }).ok());
  CHECK_FALSE(after([](auto x) { std::swap(x(9, 1), x(9, 2)); }).ok());
}

TEST_CASE("the judge does not accept silence", "[compare][judge]") {
  CHECK_FALSE(compare({}, {}, {}).ok());
  CHECK(verify::describe(compare({}, {}, {}), {0}) == "nothing was compared");
  const std::vector<double> one = {1}, two = {1, 1};
  CHECK_THROWS_WITH(compare(one, two, two), "1 numbers and 2 allowances to be held against 2");
}

TEST_CASE("an allowance that is no number allows nothing", "[compare][judge]") {
  const std::vector<double> got = {5}, want = {0};
  for (const double allowed : {inf, static_cast<double>(NAN), -1.0}) {
    const std::vector<double> bound = {allowed};
    CHECK_FALSE(compare(got, want, bound).ok());
  }
}

TEST_CASE("a NaN in the reference is a failure, not a wildcard", "[compare][judge]") {
  const std::vector<double> nan = {NAN}, bound = {inf};
  CHECK_FALSE(compare(nan, nan, bound).ok());
}

TEST_CASE("the worst element is named", "[compare][judge]") {
  const Check c = after([](auto x) { x(3, 4) += 5e-6; });
  CHECK(c.at.channel == 3 * columns + 4);
  CHECK(c.worst == Approx(5));
  CHECK_THAT(verify::describe(c, {rows, columns}), Catch::Matchers::Contains("at (3, 4)"));
  CHECK(c.n == rows * columns);
  CHECK(c.over == 1);
  CHECK(verify::place_in({2, 3, 4}, 23) == "(1, 2, 3)");
}

TEST_CASE("an error in units of what is allowed is infinite wherever it is no number",
          "[compare][judge]") {
  using verify::in_units_of;
  CHECK(in_units_of(2, 3, 2) == 0.5);
  CHECK(in_units_of(0, 3, 3) == 0);
  CHECK(in_units_of(0, 3, 2) == inf);
  CHECK(in_units_of(1, -inf, -inf) == 0);  // masks
  CHECK(in_units_of(NAN, inf, inf) == 0);  // whose bound nobody derives
  CHECK(in_units_of(1, inf, -inf) == inf);
  for (const double wrong : {static_cast<double>(NAN), inf, -inf}) {
    CHECK(in_units_of(1, wrong, 2) == inf);
    CHECK(in_units_of(1, 2, wrong) == inf);
  }
  CHECK(in_units_of(1, NAN, NAN) == inf);
  for (const double allowed : {static_cast<double>(NAN), inf, -1.0}) {
    CHECK(in_units_of(allowed, 3, 3) == inf);
    CHECK(in_units_of(allowed, 3, 2) == inf);
  }
  CHECK(in_units_of(1e308, 1.7e308, -1.7e308) == inf);  // the difference overflows
}

TEST_CASE("a check is ok only if something was compared and nothing is beyond its limit",
          "[compare][judge]") {
  const auto check_of = [](double value, double limit) {
    Check check;
    check.add_value(value, limit, {0, 0, 0});
    return check;
  };
  CHECK_FALSE(Check{}.ok());
  CHECK(check_of(1, 1).ok());
  CHECK(check_of(0, 0).ok());
  for (const auto& [value, limit] :
       {std::pair<double, double>{2, 1}, {NAN, 1}, {1, NAN}, {inf, inf}, {1, -1}, {1, inf}}) {
    Check check = check_of(0.5, 1);
    check.add_value(value, limit, {0, 1, 0});
    CAPTURE(value, limit);
    CHECK_FALSE(check.ok());
    CHECK(check.over == 1);
    CHECK(check.at.position == 1);
    check.add_value(0.5, 1, {0, 2, 0});  // stays beyond
    CHECK(check.over == 1);
    CHECK(check.at.position == 1);
  }
  Check kinds;
  kinds.add(9, 1, 1, {0, 0, 0});
  kinds.add(NAN, 1, 1, {0, 0, 1});  // the first wrong kind takes the place of any number
  kinds.add(inf, 1, 1, {0, 0, 2});
  CHECK(kinds.over == 1);
  CHECK(kinds.wrong_kind == 2);
  CHECK(kinds.at.channel == 1);
}
