#include "verify/gradients/limits.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "verify/measure/stats.hpp"

namespace dsa::verify {
namespace {

/// Of the formats that losses are computed in: HuggingFace's are float32 in bf16 runs, too.
double unit_of(reference::Precision precision) {
  return precision == reference::Precision::fp64 ? 0x1p-53 : 0x1p-24;
}

}  // namespace

GradientLimits::GradientLimits(const GradientVariant& v, const GradientPass& base,
                               GradientDraws draws, reference::Precision precision, double tail)
    : variant_(v),
      base_(base),
      draws_(std::move(draws)),
      whole_(draws_.whole),
      element_(draws_.element),
      precision_(precision),
      tail_(tail) {}

/// Standard deviation of a loss by the roundings of its own arithmetic, which the perturbed runs
/// leave out. A row's terms are logarithms of at most ln(choices), rounded once each; rows round
/// alone.
double GradientLimits::own_rounding() const {
  const bool is_kl = variant_.is("kl");
  const std::vector<double>& weights = is_kl ? variant_.objective.kl : variant_.objective.lm;
  const auto choices =
      static_cast<double>(is_kl ? variant_.sequence.size() : variant_.model.config.vocab_size);
  return unit_of(precision_) * 2 * std::log(choices) * norm(weights) * variant_.loss_factor;
}

double GradientLimits::of_loss() const {
  double squares = 0;
  const auto M = static_cast<double>(draws_.loss.size());
  for (double d : draws_.loss) squares += d * d / M;
  return student_quantile(M, tail_) *
             std::sqrt(squares * (1 + 1 / M) + std::pow(own_rounding(), 2)) +
         unit_of(precision_) * std::abs(base_.loss);  // and what the file's own format takes
}

GradientLimits::Measured GradientLimits::measured(std::size_t p, const StoredValues& got) const {
  const double stored = got.dtype == Dtype::f32 ? 0x1p-24 : 0;
  Measured m;
  m.distance = distance(got.values, base_.gradients[p].second);
  m.limit = whole_.of(p, tail_) + stored;
  const double ratios[] = {m.distance.whole / m.limit,
                           m.distance.element / (element_.of(p, tail_) + stored)};
  m.worst_over_allowed = std::isnan(ratios[0]) || std::isnan(ratios[1])
                             ? std::numeric_limits<double>::infinity()
                             : std::max(ratios[0], ratios[1]);
  return m;
}

}  // namespace dsa::verify
