#include "verify/judge/rows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/trace_names.hpp"

namespace dsa::verify {
namespace {

void settle_row(RowResult& r, const SequenceResult& sequence) {
  const auto t = static_cast<std::size_t>(r.at.position);
  // A row that agrees as well as rounding allows is right, whatever might have happened to it.
  if (r.agrees() || sequence.free.reach.empty()) return;
  const Reach& reach = sequence.free.reach[t];
  if (!(reach.kl > r.kl_limit && r.kl <= reach.kl)) return;
  if (!sequence.explanation.explained.empty()) {
    r.explained = sequence.explanation.explained[t];
    r.kl_explained = sequence.explanation.kl[t];
  }
  r.undecided = !r.explained;
  r.decision = reach.first.name;
  r.decided_at = reach.first.position;
  r.margin = reach.first.margin;
  r.noise = reach.first.noise;
}

/// Undecided rows taken together: their mean KL against that of the free runs.
Check judge_undecided(const LogitsResult& result, const std::vector<SequenceResult>& sequences,
                      const NoiseOptions& options) {
  Check check;
  std::vector<double> means;
  for (const RowResult& row : result.rows) {
    if (!row.undecided) continue;
    const FreeRuns& free = sequences[static_cast<std::size_t>(row.at.sequence)].free;
    means.resize(free.kl.size());
    ++check.n;
    check.got += row.kl;
    for (std::size_t m = 0; m < means.size(); ++m)
      means[m] += free.kl[m][static_cast<std::size_t>(row.at.position)];
  }
  if (check.n == 0) return check;
  const auto n = static_cast<double>(check.n);
  for (double& mean : means) mean /= n;
  check.got /= n;
  check.allowed = limit_of_means(means, options.alpha / 3);
  check.over = check.got <= check.allowed ? 0 : 1;  // a single free run allows anything
  check.from = fmt::format(
      "{} free runs ({}), near-ties broken at random; Student t on the logarithm of the mean",
      options.runs, options.precision);
  return check;
}

void add_flips(LogitsResult& result, const Explanation& explanation, Index sequence) {
  for (const Flip& flip : explanation.flips)
    result.flips.push_back({sequence, layer_of(flip.name), flip.position, flip.name, flip.without,
                            flip.with, flip.margin, flip.noise});
  result.flips_expected += explanation.expected;
  result.flips_most += explanation.most;
}

}  // namespace

LogitsRow row_of(const Sequence& s, const Place& at, const Tensor<double, 2>& want,
                 const Tensor<double, 2>& got) {
  const auto t = static_cast<std::size_t>(at.position);
  const bool is_labelled = t + 1 < s.tokens.size() && s.documents[t + 1] == s.documents[t];
  return {.at = {at.sequence, at.position, -1},
          .want = want.view()[at.position],
          .got = got.view()[at.position],
          .token = s.tokens[t],
          .next = is_labelled ? s.tokens[t + 1] : -1};
}

void judge_rows(SequenceResult& result, const Sequence& s, Index b,
                const Tensor<double, 2>& theirs) {
  result.rows.clear();
  for (Index t = 0; t < s.size(); ++t) {
    if (s.documents[static_cast<std::size_t>(t)] < 0) continue;
    const auto want = theirs.view()[t], got = std::as_const(result.base.logits).view()[t];
    RowResult r;
    r.at = {b, t, -1};
    r.kl = larger_kl(want, got);
    r.kl_limit = result.limits.kl[static_cast<std::size_t>(t)];
    for (Index v = 0; v < want.size(); ++v) {
      const double ratio = in_units_of(result.limits.logits(t, v), got(v), want(v));
      if (ratio > r.worst_over_allowed) r.worst_over_allowed = ratio, r.at.channel = v;
    }
    result.rows.push_back(std::move(r));
  }
}

void settle_rows(SequenceResult& result) {
  for (RowResult& row : result.rows) settle_row(row, result);
}

void summarise(LogitsResult& result, const std::vector<LogitsRow>& all) {
  std::vector<LogitsRow> decided;
  Check kl, elements;
  kl.from = result.kl.from, elements.from = result.elements.from;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const RowResult& r = result.rows[i];
    if (!r.decided()) continue;
    decided.push_back(all[i]);
    kl.add_value(r.kl, r.kl_limit, {r.at.sequence, r.at.position, -1});
    elements.add_value(r.worst_over_allowed, 1, r.at);
  }
  result.kl = kl, result.elements = elements;
  result.all = measure(all), result.decided = measure(decided);
}

LogitsResult judge_logits(const std::vector<Sequence>& sequences,
                          const std::vector<Tensor<double, 2>>& want,
                          const std::vector<SequenceResult>& results, const NoiseOptions& options) {
  LogitsResult result;
  std::vector<LogitsRow> all;
  for (std::size_t b = 0; b < want.size(); ++b) {
    for (const RowResult& row : results[b].rows) {
      result.rows.push_back(row);
      all.push_back(row_of(sequences[b], row.at, want[b], results[b].base.logits));
    }
    add_flips(result, results[b].explanation, static_cast<Index>(b));
  }
  result.kl.from = origin_of_kl_limit(options, static_cast<Index>(all.size()));
  result.elements.from = origin_of_element_limit(options);
  summarise(result, all);
  result.together = judge_undecided(result, results, options);
  return result;
}

}  // namespace dsa::verify
