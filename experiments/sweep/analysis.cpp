#include "experiments/sweep/analysis.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

namespace dsa::sweep {
namespace {

using Groups = std::map<std::string, std::vector<double>>;  // pairing value -> numbers

std::optional<double> number_of(const std::string& text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

/// What the claim measures in one run; of a ratio its logarithm.
std::optional<double> measured(const Claim& claim, const Row& row) {
  auto value = value_of(row, claim.metric);
  if (!claim.minus.empty()) {
    const auto other = value_of(row, claim.minus);
    if (!value || !other) return std::nullopt;
    value = claim.ratio ? *value / *other : *value - *other;
  }
  if (!value) return std::nullopt;
  const double seen = claim.ratio ? std::log(*value) : *value;
  return std::isfinite(seen) ? std::optional(seen) : std::nullopt;
}

/// The axes of a run without one of them, as a key for those that agree in it.
Settings others(Settings axes, const std::string& axis) {
  axes.erase(axis);
  return axes;
}

Groups levels(const Claim& claim, const std::string& pair, const std::vector<Row>& rows) {
  Groups groups;
  for (const Row& row : rows)
    if (const auto value = measured(claim, row)) groups[row.axes.at(pair)].push_back(*value);
  return groups;
}

Groups contrasts(const Claim& claim, const std::string& pair, const std::vector<Row>& rows) {
  std::map<Settings, double> from;
  for (const Row& row : rows)
    if (const auto value = measured(claim, row); value && row.axes.at(claim.axis) == claim.from)
      from[others(row.axes, claim.axis)] = *value;
  Groups groups;
  for (const Row& row : rows) {
    const auto partner = from.find(others(row.axes, claim.axis));
    const auto value = measured(claim, row);
    if (row.axes.at(claim.axis) == claim.to && value && partner != from.end())
      groups[row.axes.at(pair)].push_back(*value - partner->second);
  }
  return groups;
}

/// Least squares through (log x, log y): the exponent of y's growth with x.
std::optional<double> slope(const std::vector<std::pair<double, double>>& points) {
  double x = 0, y = 0, xx = 0, xy = 0;
  const auto n = static_cast<double>(points.size());
  for (const auto& [a, b] : points) x += a / n, y += b / n;
  for (const auto& [a, b] : points) xx += (a - x) * (a - x), xy += (a - x) * (b - y);
  return xx > 0 ? std::optional(xy / xx) : std::nullopt;
}

Groups exponents(const Claim& claim, const std::string& pair, const std::vector<Row>& rows) {
  std::map<Settings, std::vector<std::pair<double, double>>> curves;
  for (const Row& row : rows) {
    const auto x = number_of(row.axes.at(claim.axis));
    const auto y = value_of(row, claim.metric);
    if (x && y && *x > 0 && *y > 0)
      curves[others(row.axes, claim.axis)].emplace_back(std::log(*x), std::log(*y));
  }
  Groups groups;
  for (const auto& [axes, curve] : curves)
    if (const auto found = slope(curve)) groups[axes.at(pair)].push_back(*found);
  return groups;
}

std::vector<Row> speaking(const Claim& claim, const std::vector<Row>& rows) {
  std::vector<Row> all;
  for (const Row& row : rows) {
    bool in = row.done;
    for (const auto& [axis, value] : claim.where) in = in && row.axes.at(axis) == value;
    if (in) all.push_back(row);
  }
  return all;
}

/// Takes out the values of the pairing axis that lack runs which others have: a mean over other
/// conditions is no partner. Returns how many.
std::size_t drop_incomplete(Groups& groups) {
  std::size_t most = 0;
  for (const auto& [value, numbers] : groups) most = std::max(most, numbers.size());
  return std::erase_if(groups, [&](const auto& group) { return group.second.size() < most; });
}

std::string note_of(const Estimate& e) {
  if (e.n == 1) return "one pair has no interval";
  if (e.n > 24) return "the exact test is computed up to 24 pairs";
  // Two-sided, n pairs cannot fall below 2^(1-n): only from six on that is below 0.05.
  if (e.n < 6)
    return fmt::format("with {} pairs the exact test cannot reach p < {:.3g}", e.n,
                       std::ldexp(1.0, 1 - static_cast<int>(e.n)));
  return "";
}

}  // namespace

std::optional<double> value_of(const Row& row, const std::string& metric) {
  if (const auto at = row.metrics.find(metric); at != row.metrics.end()) return at->second;
  if (row.receipt.contains(metric) && row.receipt.at(metric).is_number())
    return row.receipt.at(metric).get<double>();
  return std::nullopt;
}

Finding examine(const Sweep& sweep, const Claim& claim, const std::vector<Row>& rows) {
  Finding finding;
  finding.claim = claim;
  const std::vector<Row> heard = speaking(claim, rows);
  Groups groups = claim.growth         ? exponents(claim, sweep.pair, heard)
                  : claim.axis.empty() ? levels(claim, sweep.pair, heard)
                                       : contrasts(claim, sweep.pair, heard);
  const std::size_t dropped = drop_incomplete(groups);
  std::vector<double> differences;
  for (const auto& [value, numbers] : groups) {
    double mean = 0;
    for (const double number : numbers) mean += number / static_cast<double>(numbers.size());
    differences.push_back(mean);
    finding.pairs.emplace_back(value, claim.ratio ? std::exp(mean) : mean);
  }
  if (differences.empty()) {
    finding.note = "no finished run has what the claim compares";
    return finding;
  }
  finding.estimate = estimate(differences);
  if (claim.ratio)
    for (double* end : {&finding.estimate.mean, &finding.estimate.low, &finding.estimate.high})
      *end = std::exp(*end);
  finding.verdict = judge(finding.estimate, claim.gate);
  finding.note = note_of(finding.estimate);
  if (dropped > 0)
    finding.note += fmt::format("{}{} of {} {}s left out, for not all their runs finished",
                                finding.note.empty() ? "" : "; ", dropped,
                                dropped + differences.size(), sweep.pair);
  return finding;
}

}  // namespace dsa::sweep
