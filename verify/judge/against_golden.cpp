#include "verify/judge/against_golden.hpp"

#include <algorithm>
#include <cmath>

#include "verify/measure/selection.hpp"

namespace dsa::verify {
namespace {

/// Two sides that are both right may differ by as much as each differs from the definition: KL is
/// half a squared distance (of the Fisher metric), so its roots add; allowed errors add as they
/// are.
double sum_of_kl_limits(double a, double b) { return std::pow(std::sqrt(a) + std::sqrt(b), 2); }

/// The first position from which two runs of a sequence decided differently; its size if never.
Index first_difference(const Run& a, const Run& b, Index size) {
  for (const Decision& decision : a.decisions) {
    const Decision* other = b.find(decision.name);
    for (Index t = 0; other != nullptr && t < size; ++t)
      if (sorted_set(decision.chosen.view()[t]) != sorted_set(other->chosen.view()[t])) size = t;
  }
  return size;
}

/// One row of the candidate by the golden. Where either side took other decisions than the
/// definition, the row is judged by the definition alone.
RowResult row_by_golden(const RowResult& candidate, const RowResult& golden, const LogitsRow& row,
                        const Limits& candidate_limits, const Limits& golden_limits) {
  RowResult r = candidate;
  if (!candidate.decided() || !golden.decided()) return r;
  r.kl = std::max(candidate.kl, larger_kl(row.want, row.got));
  if (!(candidate.kl <= candidate.kl_limit)) return r;
  r.kl_limit = sum_of_kl_limits(candidate.kl_limit, golden.kl_limit);
  for (Index v = 0; v < row.want.size(); ++v) {
    const double allowed =
        candidate_limits.logits(row.at.position, v) + golden_limits.logits(row.at.position, v);
    const double ratio = in_units_of(allowed, row.got(v), row.want(v));
    if (ratio > r.worst_over_allowed) r.worst_over_allowed = ratio, r.at.channel = v;
  }
  return r;
}

}  // namespace

LogitsResult by_golden(const Side& candidate, const Side& golden) {
  LogitsResult logits = *candidate.side.judgement.logits;
  const std::vector<RowResult>& golden_rows = golden.side.judgement.logits->rows;
  std::vector<Index> same_decisions;  // up to here both sides' replays chose the same
  for (std::size_t b = 0; b < candidate.side.sequences.size(); ++b)
    same_decisions.push_back(first_difference(candidate.side.sequences[b].base,
                                              golden.side.sequences[b].base,
                                              candidate.recording.sequences[b].size()));
  std::vector<LogitsRow> all;
  for (std::size_t i = 0; i < logits.rows.size(); ++i) {
    RowResult& r = logits.rows[i];
    const auto b = static_cast<std::size_t>(r.at.sequence);
    all.push_back(row_of(golden.recording.sequences[b], r.at, golden.recording.logits[b],
                         candidate.recording.logits[b]));
    if (r.at.position < same_decisions[b])
      r = row_by_golden(r, golden_rows[i], all.back(), candidate.side.sequences[b].limits,
                        golden.side.sequences[b].limits);
  }
  logits.kl.from += " of the candidate, plus the golden's";
  logits.elements.from += " of the candidate, plus the golden's";
  summarise(logits, all);
  return logits;
}

}  // namespace dsa::verify
