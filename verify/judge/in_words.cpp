#include "verify/judge/in_words.hpp"

#include <fmt/format.h>

#include <cmath>

#include "verify/measure/divergence.hpp"

namespace dsa::verify {
namespace {

using Lines = std::vector<std::string>;

std::string how(const ElementOrigin& o) {
  std::string text = fmt::format("t = {:.3g} (Student, {:g} degrees of freedom, tail {:.2g})",
                                 o.pooled, o.pooled_freedom, o.tail);
  if (o.own > 0)
    text += fmt::format(", own t = {:.3g} ({:g} degrees of freedom)", o.own, o.own_freedom);
  return text;
}

/// allowed = t x row x column, or own t x the element's own spread.
std::string element(const ElementOrigin& o, const Place& at, double allowed) {
  const double row = o.row[static_cast<std::size_t>(at.position)],
               column = o.column[static_cast<std::size_t>(at.channel)],
               pooled = o.pooled * row * column;
  if (o.own > 0 && pooled < allowed)
    return fmt::format("{:.3g} = own t x {:.3g}, its own spread (its row's: {:.3g})", allowed,
                       allowed / o.own, row);
  if (pooled < allowed)  // few runs: numbers of this size stand out
    return fmt::format("{:.3g} = t x {:.3g}, its row's spread, x {:.3g} for a number of its size",
                       allowed, row, allowed / (o.pooled * row));
  return fmt::format("{:.3g} = t x {:.3g}, its row's spread, x {:.3g} for its column", allowed, row,
                     column);
}

void add_kl(Lines& lines, const Judgement& j, Index b, const SequenceResult& result) {
  const KlOrigin& o = result.limits.kl_origin;
  lines.push_back(
      fmt::format("  KL of a row: limit = mean over the runs x F + rounding of the KL itself; F = "
                  "{:.4g} (Fisher, "
                  "({:.3g}, {:.3g}) degrees of freedom, tail {:.2g}); squared variation of a row's "
                  "KL, at 95 % of "
                  "the rows: {:.3g}",
                  o.factor, o.numerator, o.denominator, o.tail, result.limits.kl_variation));
  lines.push_back(fmt::format("  {:>8} {:>10} {:>10} {:>10} {:>10}", "position", "mean", "rounding",
                              "limit", "KL"));
  for (const RowResult& row : j.logits->rows) {
    if (row.at.sequence != b) continue;
    const auto t = static_cast<std::size_t>(row.at.position);
    lines.push_back(fmt::format("  {:>8} {:>10.3g} {:>10.3g} {:>10.3g} {:>10.3g}", row.at.position,
                                o.mean[t], kl_rounding(result.base.logits.view()[row.at.position]),
                                result.limits.kl[t], row.kl));
  }
  lines.push_back("  logits: " + how(result.limits.logits_origin));
  const Place& at = j.logits->elements.at;
  if (at.sequence == b && at.position >= 0 && at.channel >= 0)
    lines.push_back(fmt::format(
        "    at {}:{}:{} {}", b, at.position, at.channel,
        element(result.limits.logits_origin, at, result.limits.logits(at.position, at.channel))));
}

void add_tensors(Lines& lines, const Judgement& j, const SequenceResult& result) {
  for (const TensorResult& tensor : j.tensors) {
    const auto origin = result.limits.tensor_origins.find(tensor.name);
    if (origin == result.limits.tensor_origins.end()) continue;
    lines.push_back("  " + tensor.name + ": " + how(origin->second));
    if (tensor.kind == TensorResult::Kind::tensor && tensor.at.position >= 0)
      lines.push_back(fmt::format("    at {}:{}:{} {}", 0, tensor.at.position, tensor.at.channel,
                                  element(origin->second, tensor.at, tensor.allowed)));
  }
}

}  // namespace

std::vector<std::string> explained_limits(const Judgement& j,
                                          const std::vector<SequenceResult>& results,
                                          const std::vector<Sequence>& sequences,
                                          const NoiseOptions& noise) {
  Lines lines = {
      "", fmt::format("limits of {}", j.title),
      fmt::format("  {} runs of the reference with every rounding of {} drawn at random (seed {}), "
                  "decisions held; alpha {:g}, a third each for KL, logits and tensors, over {}",
                  noise.runs, noise.precision, noise.seed, noise.alpha,
                  sequences.size() == 1 ? "one sequence"
                                        : std::to_string(sequences.size()) + " sequences")};
  for (std::size_t b = 0; b < results.size(); ++b) {
    const Limits& limits = results[b].limits;
    lines.push_back(
        fmt::format("sequence {}: a decision is within the noise where its margin is below {:.3g} "
                    "x its spread; "
                    "{} are",
                    b, limits.margin_quantile, limits.near_ties.size()));
    if (j.logits && !limits.kl.empty()) add_kl(lines, j, static_cast<Index>(b), results[b]);
    if (b == 0) add_tensors(lines, j, results[b]);
  }
  return lines;
}

}  // namespace dsa::verify
