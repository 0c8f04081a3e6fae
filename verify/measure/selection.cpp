#include "verify/measure/selection.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace dsa::verify {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

struct Fault {
  std::string why = {};
  TopkFault kind = TopkFault::none;
};

/// Why the keys are not min(K, visible) different visible ones; none where they are.
Fault shape_fault(const std::vector<Index>& chosen, View<const double, 1> scores, Index K) {
  const Index S = scores.size();
  Index visible = 0;
  for (double score : scores) visible += score > -inf;
  std::vector<bool> seen(static_cast<std::size_t>(S));
  for (Index s : chosen) {
    if (s < 0 || s >= S)
      return {fmt::format("{} is no subscript below {}", s, S), TopkFault::no_subscript};
    if (seen[static_cast<std::size_t>(s)])
      return {fmt::format("{} was chosen twice", s), TopkFault::duplicate};
    if (!(scores(s) > -inf)) return {fmt::format("{} is invisible", s), TopkFault::invisible};
    seen[static_cast<std::size_t>(s)] = true;
  }
  const Index n = static_cast<Index>(chosen.size()), wanted = std::min(K, visible);
  if (n == wanted) return {};
  return {fmt::format("{} were chosen, expected {}", n, wanted), TopkFault::count};
}

/// The keys at the boundary, -1 where there is none. Of equals, the one with the higher subscript
/// is the weaker.
struct Boundary {
  Index weakest = -1, strongest = -1;  // chosen; rejected
};

Boundary boundary_of(const std::vector<Index>& chosen, View<const double, 1> scores,
                     View<const double, 1> allowed) {
  std::vector<bool> is_chosen(static_cast<std::size_t>(scores.size()));
  for (Index s : chosen) is_chosen[static_cast<std::size_t>(s)] = true;
  const auto high = [&](Index s) { return scores(s) + allowed(s); };
  const auto low = [&](Index s) { return scores(s) - allowed(s); };
  Boundary b;
  for (Index s = 0; s < scores.size(); ++s) {
    const bool mine = is_chosen[static_cast<std::size_t>(s)];
    if (mine && (b.weakest < 0 || high(s) <= high(b.weakest))) b.weakest = s;
    if (!mine && (b.strongest < 0 || low(s) > low(b.strongest))) b.strongest = s;
  }
  return b;
}

}  // namespace

bool is_wellformed(const std::vector<Index>& chosen, View<const double, 1> scores, Index K) {
  return shape_fault(chosen, scores, K).kind == TopkFault::none;
}

TopkVerdict judge_topk(const std::vector<Index>& chosen, View<const double, 1> scores,
                       View<const double, 1> allowed, Index K, Ties ties) {
  for (Index s = 0; s < scores.size(); ++s)
    if (std::isnan(scores(s)) || !std::isfinite(allowed(s)))
      return {inf, fmt::format("score {} of the reference is no number", s), TopkFault::no_score};
  if (const Fault fault = shape_fault(chosen, scores, K); fault.kind != TopkFault::none)
    return {inf, fault.why, fault.kind};
  const auto [weakest, strongest] = boundary_of(chosen, scores, allowed);
  if (weakest < 0 || strongest < 0) return {};

  const double high = scores(weakest) + allowed(weakest);
  const double low = scores(strongest) - allowed(strongest);
  const bool is_tie_right = ties == Ties::free || weakest < strongest;
  const double needed = scores(strongest) - scores(weakest);
  const double available = allowed(weakest) + allowed(strongest);
  if (high > low || (high == low && is_tie_right))
    return {needed > 0 ? std::min(1.0, needed / available) : 0};
  return {
      available > 0 ? std::max(needed / available, std::nextafter(1.0, 2.0)) : inf,
      fmt::format("{} was chosen with a score of {:.9g} instead of {} with {:.9g}; their errors "
                  "may add up to {:.3g}",
                  weakest, scores(weakest), strongest, scores(strongest), available),
      TopkFault::preference};
}

bool is_explained(const std::vector<Index>& chosen, View<const double, 1> scores,
                  View<const double, 1> allowed, Index K) {
  return judge_topk(chosen, scores, allowed, K, Ties::free).ok();
}

double margin(View<const double, 1> scores, View<const Index, 1> chosen) {
  std::vector<bool> is_chosen(static_cast<std::size_t>(scores.size()));
  double weakest = inf, strongest = -inf;
  for (Index s : chosen)
    if (s >= 0)
      is_chosen[static_cast<std::size_t>(s)] = true, weakest = std::min(weakest, scores(s));
  for (Index s = 0; s < scores.size(); ++s)
    if (!is_chosen[static_cast<std::size_t>(s)]) strongest = std::max(strongest, scores(s));
  return strongest == -inf ? inf : weakest - strongest;
}

std::vector<Index> sorted_set(View<const Index, 1> chosen) {
  std::vector<Index> set;
  for (Index s : chosen)
    if (s >= 0) set.push_back(s);
  std::sort(set.begin(), set.end());
  return set;
}

double jaccard(const std::vector<Index>& a, const std::vector<Index>& b) {
  std::vector<Index> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  const std::size_t either = a.size() + b.size() - both.size();
  return either == 0 ? 1 : static_cast<double>(both.size()) / static_cast<double>(either);
}

std::vector<Index> as_torch_orders(View<const double, 1> scores, Index K) {
  using Element = std::pair<double, Index>;
  std::vector<Element> queue;
  for (Index s = 0; s < scores.size(); ++s) queue.emplace_back(scores(s), s);
  const auto by_score = [](const Element& a, const Element& b) { return a.first > b.first; };
  if (64 * K <= scores.size())
    std::partial_sort(queue.begin(), queue.begin() + K, queue.end(), by_score);
  else
    std::nth_element(queue.begin(), queue.begin() + K - 1, queue.end(), by_score);
  std::vector<Index> keys;
  for (Index i = 0; i < K; ++i) keys.push_back(queue[static_cast<std::size_t>(i)].second);
  return keys;
}

}  // namespace dsa::verify
