// tests/verify/evidence_test.cpp — what a variant that passes has to show before it is named.
#include "verify/diagnose/evidence.hpp"

#include <cmath>

#include "tests/catch.hpp"

using namespace dsa;
using namespace dsa::verify;
using Catch::Matchers::Contains;

TEST_CASE("openness is the logarithm of the choices that noise leaves", "[judge]") {
  const std::vector<double> apart = {4, 3, 2, 1}, equal = {1, 1, 1, 1}, none(4, 0), some(4, 0.6);
  const auto view = [](const std::vector<double>& x) {
    return View<const double, 1>{x.data(), {static_cast<Index>(x.size())}};
  };
  CHECK(openness(view(apart), view(none), 2) == 0);
  CHECK(openness(view(equal), view(none), 2) == Approx(1));
  CHECK(openness(view(apart), view(some), 2) == Approx(std::log(3.0) / std::log(6.0)));
  CHECK(openness(view(apart), view(some), 4) == 0);  // all are selected
}

TEST_CASE("half of the distance, and keys that are not drawn, are evidence", "[judge]") {
  Evidence e;
  e.differing = 24, e.allowed = 2, e.open = 2;
  e.swaps_by_chance = 100, e.swaps = 50;
  e.distance_before = 1, e.distance_after = 0.5;
  CHECK(e.why_none().empty());
  const auto with = [e](auto change) {
    Evidence other = e;
    change(other);
    return other.why_none();
  };
  CHECK_THAT(with([](Evidence& x) { x.open = 3; }), Contains("3 of the 24 differing rows"));
  CHECK_THAT(with([](Evidence& x) { x.swaps = 51; }), Contains("51 keys") && Contains("where 100"));
  CHECK(with([](Evidence& x) { x.swaps_by_chance = 7, x.swaps = 7; }).empty());
  CHECK_THAT(with([](Evidence& x) { x.distance_after = 0.51; }), Contains("noise"));
  CHECK_FALSE(with([](Evidence& x) { x.distance_after = std::nan(""); }).empty());
}
