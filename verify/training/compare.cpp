#include "verify/training/compare.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dsa::verify {
namespace {

double over(double found, double expected, double limit) {
  const double error = std::abs(found - expected);
  if (error == 0) return 0;
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error / limit;
}

/// What the format of the file takes of a number, relative.
double stored_unit(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64:
      return 0;
    case Dtype::f32:
      return 0x1p-24;
    default:
      return 0x1p-9;  // bf16; f16 is narrower
  }
}

}  // namespace

Comparison::Comparison(const Trajectory& found, const Rehearsal& rehearsal,
                       const TrainingLimits& limits)
    : found_(found), rehearsal_(rehearsal), limits_(limits) {}

double Comparison::of_step(Index step, const StepRecord& expected, double wider) const {
  double worst = 0;
  for (const auto& [name, value] : found_.steps[static_cast<std::size_t>(step)])
    if (expected.contains(name))
      worst = std::max(worst, over(value, expected.at(name), wider * limits_.of(name, step)));
  return worst;
}

double Comparison::of_finals(const Replay& expected, double wider) const {
  double worst = 0;
  for (const FinalResult& r : finals(expected, {}))
    worst = std::max(worst, r.worst_over_allowed / wider);
  return worst;
}

double Comparison::between(Index step, const StepRecord& a, const StepRecord& b) const {
  double worst = 0;
  for (const auto& [name, value] : a)
    worst = std::max(worst, over(value, b.at(name), limits_.of(name, step)));
  return worst;
}

std::vector<QuantityResult> Comparison::quantities(const std::vector<StepRecord>& expected) const {
  std::vector<QuantityResult> results;
  for (const char* quantity : step_quantities) {
    if (!found_.records(quantity) || !expected.front().contains(quantity)) continue;
    QuantityResult r;
    r.name = quantity;
    for (Index n = 0; n < found_.size(); ++n) {
      const auto i = static_cast<std::size_t>(n);
      r.expected.push_back(expected[i].at(quantity));
      r.found.push_back(found_.steps[i].at(quantity));
      r.limit.push_back(limits_.of(quantity, n));
      const double ratio = over(r.found.back(), r.expected.back(), r.limit.back());
      if (ratio > 1 && r.first < 0) r.first = n;
      if (ratio > r.worst_over_allowed) r.worst_over_allowed = ratio, r.worst = n;
    }
    results.push_back(std::move(r));
  }
  return results;
}

FinalResult Comparison::of_final(std::size_t i, const Values& expected,
                                 const StoredValues& found) const {
  FinalResult r;
  const GradientDistance d = distance(found.values, expected);
  const double stored = stored_unit(found.dtype);
  r.distance = d.whole, r.at = d.at;
  r.distance_limit = limits_.whole_of_final(i) + stored;
  const double element = d.element / (limits_.element_of_final(i) + stored);
  const double ratio = d.whole / r.distance_limit;
  r.worst_over_allowed = std::isnan(ratio) || std::isnan(element)
                             ? std::numeric_limits<double>::infinity()
                             : std::max(ratio, element);
  return r;
}

/// A parameter that the recipe leaves alone is the checkpoint's, as far as its format goes.
FinalResult Comparison::of_frozen(const Values& expected, const StoredValues& found) const {
  FinalResult r;
  r.frozen = true;
  const GradientDistance d = distance(found.values, expected);
  const double format = found_.precision == "hf-bf16" ? 0x1p-9 : 0x1p-53;
  r.distance = norm(expected) == 0 ? norm(found.values) : d.whole;
  r.at = d.at;
  r.distance_limit = std::max(format, stored_unit(found.dtype));
  r.worst_over_allowed = std::isnan(r.distance) ? std::numeric_limits<double>::infinity()
                                                : r.distance / r.distance_limit;
  return r;
}

std::vector<FinalResult> Comparison::finals(const Replay& expected,
                                            const ByParameter& promised) const {
  std::vector<FinalResult> results;
  std::map<std::string, bool> trained;
  for (std::size_t i = 0; i < rehearsal_.finals.size(); ++i) {
    const std::string& name = rehearsal_.finals[i].first;
    trained[name] = true;
    const auto found = found_.finals.find(name);
    FinalResult r;
    if (found != found_.finals.end())
      r = of_final(i, expected[name], found->second);
    else if (promised.contains(name))
      r.missing = true;
    else
      continue;  // nobody promised it
    r.name = name;
    results.push_back(std::move(r));
  }
  for (const auto& [name, stored] : found_.finals) {
    if (trained.contains(name)) continue;
    results.push_back(of_frozen(expected[name], stored));
    results.back().name = name;
  }
  return results;
}

}  // namespace dsa::verify
