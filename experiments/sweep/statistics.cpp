#include "experiments/sweep/statistics.hpp"

#include <fmt/format.h>

#include <boost/math/distributions/students_t.hpp>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/check.hpp"
#include "core/json.hpp"

namespace dsa::sweep {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr Index most_flipped = 24;  // 2^23 sums of 24 numbers take a second

}  // namespace

double sign_flip_p(std::span<const double> d) {
  const auto n = static_cast<Index>(d.size());
  if (n > most_flipped) return std::numeric_limits<double>::quiet_NaN();
  if (n == 0) return 1;
  double magnitude = 0, found = 0;
  for (const double x : d) found += x, magnitude += std::abs(x);
  // Two sums of the same n numbers in another order differ by less: they count as equal.
  const double tie = static_cast<double>(n) * std::numeric_limits<double>::epsilon() * magnitude;
  const double far = std::abs(found) - tie;
  // The last sign stays +: flipping every sign gives the same distance from 0.
  const std::uint64_t choices = std::uint64_t{1} << (n - 1);
  std::uint64_t as_far = 0;
  for (std::uint64_t signs = 0; signs < choices; ++signs) {
    double sum = 0;
    for (Index i = 0; i < n; ++i)
      sum +=
          (signs >> i & 1) != 0 ? -d[static_cast<std::size_t>(i)] : d[static_cast<std::size_t>(i)];
    if (std::abs(sum) >= far) ++as_far;
  }
  return static_cast<double>(as_far) / static_cast<double>(choices);
}

Estimate estimate(std::span<const double> d) {
  Estimate e;
  e.n = static_cast<Index>(d.size());
  require(e.n > 0, "no pair of finished runs can be compared; run the points of the sweep first");
  const double n = static_cast<double>(e.n);
  e.mean = std::accumulate(d.begin(), d.end(), 0.0) / n;
  e.p = sign_flip_p(d);
  if (e.n == 1) {
    e.low = -infinity, e.high = infinity;
    return e;
  }
  double squares = 0;
  for (const double x : d) squares += (x - e.mean) * (x - e.mean);
  const double t = boost::math::quantile(boost::math::students_t(n - 1), 0.975);
  const double half = t * std::sqrt(squares / (n - 1) / n);
  e.low = e.mean - half, e.high = e.mean + half;
  return e;
}

Gate parse_gate(const std::string& text, const std::string& what) {
  const auto space = text.find(' ');
  const std::string word = text.substr(0, space);
  const std::string number = space == std::string::npos ? "" : text.substr(space + 1);
  Gate gate;
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), gate.bound);
  const bool read = error == std::errc{} && end == number.data() + number.size();
  if (word == ">=") gate.kind = Gate::Kind::at_least;
  if (word == "<=") gate.kind = Gate::Kind::at_most;
  if (word == "within") gate.kind = Gate::Kind::within;
  require((word == ">=" || word == "<=" || word == "within") && read && std::isfinite(gate.bound) &&
              (word != "within" || gate.bound >= 0),
          what + " is " + in_quotes(text) +
              ", expected \">= NUMBER\", \"<= NUMBER\" or \"within NUMBER\"");
  return gate;
}

std::string text_of(const Gate& gate) {
  switch (gate.kind) {
    case Gate::Kind::at_least:
      return fmt::format(">= {}", gate.bound);
    case Gate::Kind::at_most:
      return fmt::format("<= {}", gate.bound);
    default:
      return fmt::format("within {}", gate.bound);
  }
}

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::holds:
      return "holds";
    case Verdict::does_not:
      return "does not hold";
    default:
      return "cannot tell";
  }
}

Verdict judge(const Estimate& e, const Gate& gate) {
  double least = -infinity, most = infinity;  // what satisfies the gate
  if (gate.kind == Gate::Kind::at_least) least = gate.bound;
  if (gate.kind == Gate::Kind::at_most) most = gate.bound;
  if (gate.kind == Gate::Kind::within) least = -gate.bound, most = gate.bound;
  if (e.low >= least && e.high <= most) return Verdict::holds;
  if (e.high < least || e.low > most) return Verdict::does_not;
  return Verdict::cannot_tell;
}

}  // namespace dsa::sweep
