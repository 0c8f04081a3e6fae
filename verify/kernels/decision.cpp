#include "verify/kernels/decision.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "reference/ops/topk_select.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

/// Ascending subscripts below S, then only -1. `n`: how many.
std::string order_of(std::span<const double> chosen, Index S, std::size_t& n) {
  n = 0;
  while (n < chosen.size() && chosen[n] != -1) ++n;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const double s = chosen[i];
    if (i >= n && s != -1) return fmt::format("{} stands behind a -1", s);
    if (i < n && !(0 <= s && s < static_cast<double>(S)))
      return fmt::format("{} is no subscript below {}", s, S);
    if (i > 0 && i < n && s == chosen[i - 1]) return fmt::format("{} was chosen twice", s);
    if (i > 0 && i < n && !(s > chosen[i - 1]))
      return fmt::format("{} stands behind {}: not in ascending order", s, chosen[i - 1]);
  }
  return "";
}

}  // namespace

Decision judge_decision(std::span<const double> chosen, View<const double, 1> scores,
                        View<const double, 1> allowed) {
  const Index S = scores.size();
  std::size_t n = 0;
  if (const std::string why = order_of(chosen, S, n); !why.empty()) return {inf, why};
  std::vector<bool> is_chosen(static_cast<std::size_t>(S));
  for (std::size_t i = 0; i < n; ++i) is_chosen[static_cast<std::size_t>(chosen[i])] = true;

  Index visible = 0, weakest = -1, strongest = -1;
  for (Index s = 0; s < S; ++s) {
    if (std::isnan(scores(s)) || !std::isfinite(allowed(s)))
      return {inf, fmt::format("score {} of the reference is no number", s)};
    const bool mine = is_chosen[static_cast<std::size_t>(s)];
    visible += scores(s) > -inf;
    if (mine && scores(s) == -inf) return {inf, fmt::format("{} is invisible", s)};
    // Among equals, the one with the higher subscript is the weaker.
    if (mine && (weakest < 0 || scores(s) + allowed(s) <= scores(weakest) + allowed(weakest)))
      weakest = s;
    if (!mine && (strongest < 0 || scores(s) - allowed(s) > scores(strongest) - allowed(strongest)))
      strongest = s;
  }
  const auto wanted = std::min(static_cast<Index>(chosen.size()), visible);
  if (static_cast<Index>(n) != wanted)
    return {inf, fmt::format("{} were chosen, expected {}", n, wanted)};
  if (weakest < 0 || strongest < 0) return {};

  const double high = scores(weakest) + allowed(weakest);
  const double low = scores(strongest) - allowed(strongest);
  const bool right = high > low || (high == low && weakest < strongest);
  const double needed = scores(strongest) - scores(weakest);
  const double available = allowed(weakest) + allowed(strongest);
  if (right) return {needed > 0 ? needed / available : 0, ""};
  return {
      available > 0 ? std::max(needed / available, std::nextafter(1.0, 2.0)) : inf,
      fmt::format("{} was chosen with a score of {:.9g} instead of {} with {:.9g}; their errors "
                  "may add up to {:.3g}",
                  weakest, scores(weakest), strongest, scores(strongest), available)};
}

Comparison judge_selection(const Case& c, const std::vector<double>& chosen) {
  const Index T = c.out.at("chosen").shape()[0], K = c.out.at("chosen").shape()[1];
  const std::vector<double>&scores = c.want.at("scores"), &allowed = c.allowed.at("scores");
  const Index S = T == 0 ? 0 : static_cast<Index>(scores.size()) / T;
  Comparison comparison;
  comparison.n = K == 0 ? 0 : T;
  for (Index t = 0; t < comparison.n; ++t) {
    const Decision row = judge_decision(
        std::span(chosen).subspan(static_cast<std::size_t>(t * K), static_cast<std::size_t>(K)),
        {scores.data() + t * S, {S}}, {allowed.data() + t * S, {S}});
    comparison.over += !row.ok();
    if (row.ratio <= comparison.worst) continue;
    comparison.worst = row.ratio;
    comparison.worst_at = t * K;
    comparison.why = row.ok() ? "" : fmt::format("row {}: {}", t, row.why);
  }
  return comparison;
}

void set_selection(Case& c, const Tensor<double, 2>& scores, const Tensor<double, 2>& allowed,
                   Index K) {
  const Index T = scores.shape()[0];
  Tensor<Index, 2> chosen({T, K});
  reference::topk_select<double>(chosen, scores);
  std::vector<double> want;
  for (Index t = 0; t < T; ++t) {
    Index* const row = chosen.view()[t].data;
    // In ascending order, and -1 at the end: as unsigned numbers -1 is the largest.
    std::sort(row, row + K, [](Index a, Index b) {
      return static_cast<std::uint64_t>(a) < static_cast<std::uint64_t>(b);
    });
    want.insert(want.end(), row, row + K);
  }
  c.out["chosen"] = Array(Dtype::i32, {T, K});
  c.allowed["chosen"].assign(want.size(), 0);
  c.want["chosen"] = std::move(want);
  c.want["scores"].assign(scores.begin(), scores.end());
  c.allowed["scores"].assign(allowed.begin(), allowed.end());
}

}  // namespace dsa::verify::kernels
