#include "verify/measure/selection.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dsa::verify {
namespace {
constexpr double inf = std::numeric_limits<double>::infinity();
}

bool is_wellformed(const std::vector<Index>& chosen, View<const double, 1> scores, Index K) {
  const Index S = scores.size();
  Index visible = 0;
  for (double score : scores) visible += score > -inf;
  if (static_cast<Index>(chosen.size()) != std::min(K, visible)) return false;
  std::vector<bool> seen(static_cast<std::size_t>(S));
  for (Index s : chosen) {
    if (s < 0 || s >= S || seen[static_cast<std::size_t>(s)] || !(scores(s) > -inf)) return false;
    seen[static_cast<std::size_t>(s)] = true;
  }
  return true;
}

bool is_explained(const std::vector<Index>& chosen, View<const double, 1> scores,
                  View<const double, 1> allowed, Index K) {
  const Index S = scores.size();
  for (Index s = 0; s < S; ++s)
    if (std::isnan(scores(s)) || !std::isfinite(allowed(s))) return false;
  if (!is_wellformed(chosen, scores, K)) return false;
  std::vector<bool> is_chosen(static_cast<std::size_t>(S));
  for (Index s : chosen) is_chosen[static_cast<std::size_t>(s)] = true;
  double weakest = inf, strongest = -inf;
  for (Index s = 0; s < S; ++s) {
    if (is_chosen[static_cast<std::size_t>(s)])
      weakest = std::min(weakest, scores(s) + allowed(s));
    else
      strongest = std::max(strongest, scores(s) - allowed(s));
  }
  return weakest >= strongest;
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

}  // namespace dsa::verify
