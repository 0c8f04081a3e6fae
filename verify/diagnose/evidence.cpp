#include "verify/diagnose/evidence.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/trace_names.hpp"
#include "verify/judge/traces.hpp"
#include "verify/measure/selection.hpp"

namespace dsa::verify {
namespace {

constexpr double mostly = 0.5;  // of the logarithm of all choices

/// Noise swaps keys that are nearly equal: far fewer than its limits admit. Few say nothing.
constexpr double most_swapped = 0.5, few_swaps = 8;

/// An explanation takes away at least the other half of the distance. Where the noise of bf16 is as
/// large as what is to be explained, one of a thousand variants passes by luck.
constexpr double most_left = 0.5;

double log_choose(Index n, Index k) {
  const auto of = [](Index x) { return std::lgamma(static_cast<double>(x) + 1); };
  return of(n) - of(k) - of(n - k);
}

/// Open rows among n of which the share u is open by noise alone.
double open_by_noise(Index n, double u) {
  const auto count = static_cast<double>(n);
  return count * u + 3 * std::sqrt(count * u * (1 - u));
}

bool differs(const RowResult& row) { return row.decided() && !row.agrees(); }

void weigh_logits(Evidence& e, const LogitsResult& plain, const LogitsResult& broken) {
  Index differing = 0, by_noise = 0;
  for (std::size_t i = 0; i < plain.rows.size(); ++i) {
    if (!plain.rows[i].decided()) ++by_noise;
    if (!differs(plain.rows[i])) continue;
    ++differing;
    if (!broken.rows[i].decided()) ++e.open;
  }
  e.differing += differing;
  e.allowed += open_by_noise(differing, static_cast<double>(by_noise) /
                                            std::max(1.0, static_cast<double>(plain.rows.size())));
}

/// One traced decision under one run: which rows it rejects, and which are open.
struct Rows {
  std::vector<bool> rejected, open;
  std::vector<double> swaps, swaps_by_chance;
  Index selective = 0, open_rows = 0;  // rows that see more than they may choose; open ones of all
};

/// Keys that may be swapped within the noise, and how many of them are among the K best.
struct Swappable {
  Index keys = 0, taken = 0, visible = 0;

  /// Keys of another choice that are not of this one, on average over all choices.
  double by_chance() const {
    const auto n = static_cast<double>(keys), k = static_cast<double>(taken);
    return keys == 0 ? 0 : k * (n - k) / n;
  }
};

Swappable swappable(View<const double, 1> scores, View<const double, 1> allowed, Index K) {
  std::vector<Index> order;
  for (Index s = 0; s < scores.size(); ++s)
    if (scores(s) > -std::numeric_limits<double>::infinity()) order.push_back(s);
  Swappable found;
  found.visible = static_cast<Index>(order.size());
  if (found.visible <= K || K == 0) return found;
  std::stable_sort(order.begin(), order.end(),
                   [&](Index a, Index b) { return scores(a) > scores(b); });
  const Index last = order[static_cast<std::size_t>(K - 1)];
  for (Index i = 0; i < found.visible; ++i) {
    const Index s = order[static_cast<std::size_t>(i)];
    if (!(std::abs(scores(s) - scores(last)) <= allowed(s) + allowed(last))) continue;
    ++found.keys;
    found.taken += i < K;
  }
  return found;
}

/// Of `theirs`, those that are not of `mine`.
double swaps_of(const std::vector<Index>& theirs, const std::vector<Index>& mine) {
  std::vector<Index> other;
  std::set_difference(theirs.begin(), theirs.end(), mine.begin(), mine.end(),
                      std::back_inserter(other));
  return static_cast<double>(other.size());
}

/// The trace holds what the decision was made from, so that it is judged by itself.
bool scores_are_traced(const std::string& decision, const Recording& side) {
  const auto is_traced = [&](const char* name) {
    return side.trace.contains(sibling(decision, name));
  };
  if (is_selection(decision)) return is_traced(names::indexer_scores);
  if (within_layer(decision) == names::gate_groups) return is_traced(names::gate_group_scores);
  return is_traced(names::gate_logits) || is_traced(names::gate_choice);
}

/// `seen`: the definition's scores, which say what a query sees. A choice of keys that the variant
/// masks is not the variant's.
Rows rows_of(const Decision& decision, const SequenceResult& sequence, const Variant& variant,
             const TracedDecisions& told, const Sequence& tokens, const Tensor<double, 2>& seen) {
  const auto [T, K] = decision.chosen.shape();
  const auto n = static_cast<std::size_t>(T);
  Rows rows{std::vector<bool>(n), std::vector<bool>(n), std::vector<double>(n),
            std::vector<double>(n)};
  Tensor<Index, 2> own(decision.chosen.shape());
  variant.ops.topk_select(decision.name, own, decision.scores);
  const Tensor<double, 2>& limits = sequence.limits.scores.at(decision.name);
  for (Index t = 0; t < T; ++t) {
    const auto i = static_cast<std::size_t>(t);
    if (tokens.documents[i] < 0) continue;
    const auto scores = decision.scores.view()[t], allowed = limits.view()[t];
    const std::vector<Index> mine = sorted_set(own.view()[t]),
                             theirs = told.row(decision.name, t, scores);
    const bool is_open = openness(scores, allowed, K) > mostly;
    rows.selective += std::count_if(scores.begin(), scores.end(), [](double x) {
                        return x > -std::numeric_limits<double>::infinity();
                      }) > K;
    rows.open_rows += is_open;
    const bool masks = told.row(decision.name, t, seen.view()[t]).size() != theirs.size();
    rows.swaps[i] = swaps_of(theirs, mine);
    rows.swaps_by_chance[i] = swappable(scores, allowed, K).by_chance();
    if (mine == theirs && !masks) continue;
    rows.rejected[i] = masks || !is_explained(theirs, scores, allowed, K);
    rows.open[i] = masks || is_open;
  }
  return rows;
}

void weigh_decisions(Evidence& e, const ModelPair& models, const SequenceResult& plain,
                     const ModelPair& variant, const SequenceResult& broken,
                     const Recording& side) {
  const TracedDecisions told(side, models.definition.config);
  const Variant definition = models.exact(), altered = variant.exact();
  for (const Decision& decision : plain.base.decisions) {
    if (!told.contains(decision.name)) continue;
    const Rows right =
        rows_of(decision, plain, definition, told, side.sequences.front(), decision.scores);
    const Index differing = std::count(right.rejected.begin(), right.rejected.end(), true);
    const Decision* other = broken.base.find(decision.name);
    e.differing += differing;
    if (differing == 0 || other == nullptr || scores_are_traced(decision.name, side)) continue;
    const Rows wrong =
        rows_of(*other, broken, altered, told, side.sequences.front(), decision.scores);
    for (std::size_t t = 0; t < right.rejected.size(); ++t) {
      if (!right.rejected[t]) continue;
      e.open += wrong.open[t];
      e.swaps += wrong.swaps[t], e.swaps_by_chance += wrong.swaps_by_chance[t];
    }
    e.allowed += open_by_noise(differing, static_cast<double>(right.open_rows) /
                                              std::max(1.0, static_cast<double>(right.selective)));
  }
}

Index first_of_tensors(const SequenceResult& plain, const Recording& side) {
  Index first = -1;
  for (const Trace::Entry& entry : plain.base.trace.entries()) {
    const Trace::Entry* recorded = side.trace.find(entry.name);
    const auto limits = plain.limits.tensors.find(entry.name);
    if (recorded == nullptr || limits == plain.limits.tensors.end() ||
        within_layer(entry.name) == names::gate_weights)
      continue;
    const Tensor<double, 2> theirs = recorded->values(), ours = entry.values();
    if (theirs.shape() != ours.shape()) continue;
    for (Index i = 0; i < theirs.size(); ++i) {
      const Index t = i / theirs.shape()[1];
      if (first >= 0 && t >= first) break;
      const double got = theirs.data()[i], want = ours.data()[i];
      if (side.sequences.front().documents[static_cast<std::size_t>(t)] < 0 ||
          (is_masked(got) && is_masked(want)))
        continue;
      if (!(std::abs(got - want) <= limits->second.data()[i])) first = t;
    }
  }
  return first;
}

}  // namespace

double openness(View<const double, 1> scores, View<const double, 1> allowed, Index K) {
  const Swappable found = swappable(scores, allowed, K);
  if (found.keys == 0) return 0;
  return log_choose(found.keys, found.taken) / log_choose(found.visible, K);
}

std::string Evidence::why_none() const {
  if (static_cast<double>(open) > allowed)
    return fmt::format("{} of the {} differing rows could have held almost anything under it", open,
                       differing);
  if (swaps_by_chance >= few_swaps && swaps > most_swapped * swaps_by_chance)
    return fmt::format(
        "{:.0f} keys of the {} differing rows are not its own, where {:.0f} would be by chance",
        swaps, differing, swaps_by_chance);
  if (!(distance_after <= most_left * distance_before))
    return "the noise of its precision hides what it is to explain";
  return "";
}

Evidence weigh(const ModelPair& models, const SideResult& plain, const ModelPair& variant,
               const SideResult& broken, const Recording& side) {
  Evidence e;
  if (plain.judgement.logits && broken.judgement.logits)
    weigh_logits(e, *plain.judgement.logits, *broken.judgement.logits);
  if (!side.trace.empty() && !plain.sequences.empty() && !broken.sequences.empty())
    weigh_decisions(e, models, plain.sequences.front(), variant, broken.sequences.front(), side);
  return e;
}

Index first_difference(const SideResult& plain, const ModelPair& models, const Recording& side) {
  Index first = -1;
  const auto take = [&](Index t) {
    if (t >= 0 && (first < 0 || t < first)) first = t;
  };
  if (plain.judgement.logits)
    for (const RowResult& row : plain.judgement.logits->rows)
      if (differs(row)) take(row.at.position);
  if (side.trace.empty() || plain.sequences.empty()) return first;
  take(first_of_tensors(plain.sequences.front(), side));
  const TracedDecisions told(side, models.definition.config);
  const Variant definition = models.exact();
  for (const Decision& decision : plain.sequences.front().base.decisions) {
    if (!told.contains(decision.name)) continue;
    const Rows rows = rows_of(decision, plain.sequences.front(), definition, told,
                              side.sequences.front(), decision.scores);
    const auto found = std::find(rows.rejected.begin(), rows.rejected.end(), true);
    if (found != rows.rejected.end()) take(found - rows.rejected.begin());
  }
  return first;
}

}  // namespace dsa::verify
