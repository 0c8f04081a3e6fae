#include <fmt/format.h>

#include <cmath>

#include "verify/invariants/parts.hpp"
#include "verify/measure/divergence.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

struct Difference {
  double largest = 0;
  Index channel = 0;
};

Difference difference(View<const double, 1> want, View<const double, 1> got) {
  Difference worst;
  for (Index v = 0; v < want.size(); ++v) {
    const double d = want(v) == got(v) ? 0 : std::abs(want(v) - got(v));
    if (is_worse(d, worst.largest)) worst = {d, v};
  }
  return worst;
}

/// In units of what rounding allows: both sides are rounded, so that their difference has twice
/// the variance of either's error. KL is quadratic in it.
double ratio(View<const double, 1> want, View<const double, 1> got, const Limits& limits,
             Index row) {
  double worst = larger_kl(want, got) / (2 * limits.kl[static_cast<std::size_t>(row)]);
  for (Index v = 0; v < want.size(); ++v) {
    const double mine = in_units_of(std::sqrt(2) * limits.logits(row, v), got(v), want(v));
    if (is_worse(mine, worst)) worst = mine;
  }
  return worst;
}

}  // namespace

void RowComparison::add(const Tensor<double, 2>& want, const Tensor<double, 2>& got,
                        const Rows& rows, const std::string& how) {
  for (Index i = 0; i < rows.n; ++i) {
    const auto a = want.view()[rows.want_first + i], b = got.view()[rows.got_first + i];
    ++rows_;
    const Difference d = difference(a, b);
    if (d.largest == 0) continue;
    ++different_;
    const Index row = rows.main_first + i;
    const std::string at = fmt::format("row {}, token {}, {}", row, d.channel, how);
    if (is_worse(d.largest, difference_)) difference_ = d.largest, difference_at_ = at;
    if (strict_) continue;
    const double mine = ratio(a, b, noise_.limits(), row);
    // Twice what decisions may make of either side.
    if (!(mine <= 1) && larger_kl(a, b) <= 2 * noise_.reach(row).kl) {
      ++undecided_;
      continue;
    }
    if (!(mine <= 1)) ++over_;
    if (is_worse(mine, ratio_)) ratio_ = mine, ratio_at_ = at;
  }
}

void RowComparison::conclude(Invariant& invariant) const {
  const auto say = [&](const std::string& more) {
    invariant.note += (invariant.note.empty() ? "" : "; ") + more;
  };
  invariant.n = rows_;
  if (rows_ == 0) return;
  if (different_ == 0 || strict_) {
    invariant.held = different_ == 0 ? Held::pass : Held::fail;
    invariant.value = difference_;
    invariant.from = "bitwise";
    invariant.at = difference_at_;
    if (different_ > 0) say(fmt::format("{} of {} rows differ", different_, rows_));
    return;
  }
  invariant.value = ratio_;
  invariant.limit = 1;
  invariant.from = noise_.origin();
  invariant.at = ratio_at_;
  invariant.held = over_ > 0 ? Held::fail : 2 * undecided_ > rows_ ? Held::undecided : Held::pass;
  say(fmt::format("not bitwise: {} of {} rows differ, by up to {}", different_, rows_,
                  number(difference_)));
  if (over_ > 0) say(fmt::format("{} of them beyond the limit", over_));
  if (undecided_ > 0)
    say(fmt::format("{} undecided: they hang on decisions that rounding may turn", undecided_));
}

}  // namespace dsa::verify
