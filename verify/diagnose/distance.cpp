#include "verify/diagnose/distance.hpp"

#include <algorithm>
#include <cmath>

#include "core/trace_names.hpp"
#include "verify/measure/divergence.hpp"
#include "verify/measure/infinity.hpp"
#include "verify/measure/selection.hpp"
#include "verify/runs/reference_run.hpp"

namespace dsa::verify {
namespace {

constexpr double worst = 1e3;  // stands for "no number"

/// The limits of a variant's own run are not known before it is held: those of the definition,
/// times this, are far enough for either side's noise.
constexpr double wide = 16;

/// sum (a-b)^2 / sum b^2 over elements that are numbers on both sides (0 / 0 is 0), plus the share
/// of those that are numbers on one side only.
double nmse(View<const double, 2> a, const Tensor<double, 2>& b) {
  double error = 0, norm = 0, other_kind = 0, compared = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const double x = a.data[i], y = b.data()[i];
    if (is_masked(x) && is_masked(y)) continue;
    ++compared;
    if (is_masked(x) || is_masked(y) || !std::isfinite(x) || !std::isfinite(y))
      ++other_kind;
    else
      error += (x - y) * (x - y), norm += y * y;
  }
  return (error == 0 ? 0 : std::min(worst, error / norm)) + other_kind / std::max(compared, 1.0);
}

/// Ends a run.
struct Ended {};

}  // namespace

struct Distances::Progress {
  Distance distance;
  bool screen = false;
  double bound = inf;
  double traced = 0, kl_sum = 0;
};

Distances::Distances(const Recording& candidate, const Variant& definition, const SideResult& plain)
    : candidate_(candidate), decisions_(candidate, definition.model.config) {
  for (const Trace::Entry& entry : candidate.trace.entries()) values_[entry.name] = entry.values();
  for (std::size_t b = 0; b < candidate.logits.size(); ++b)
    for (const Index document : candidate.sequences[b].documents) rows_ += document >= 0;
  find_first(plain);
  of_definition_ = run(definition, false, inf);
}

/// The first tensor that differs, and the limits of what comes before it.
void Distances::find_first(const SideResult& plain) {
  if (plain.sequences.empty() || candidate_.trace.empty()) return;
  const SequenceResult& sequence = plain.sequences.front();
  for (const TensorResult& tensor : plain.judgement.tensors) {
    if (plain.judgement.first_departure == tensor.name) {
      first_ = tensor.name;
      break;
    }
    const auto limits = sequence.limits.tensors.find(tensor.name);
    if (tensor.kind == TensorResult::Kind::tensor && limits != sequence.limits.tensors.end() &&
        within_layer(tensor.name) != names::gate_weights)
      limits_.emplace(tensor.name, limits->second);
  }
}

bool Distances::agrees(const std::string& name, View<double, 2> x) const {
  const auto limits = limits_.find(name);
  if (limits == limits_.end()) return true;
  const Tensor<double, 2>& theirs = values_.at(name);
  if (theirs.shape() != x.shape || limits->second.shape() != x.shape) return false;
  for (Index i = 0; i < x.size(); ++i) {
    const double got = theirs.data()[i], want = x.data[i];
    const auto t = static_cast<std::size_t>(i / x.shape[1]);
    if (candidate_.sequences.front().documents[t] < 0 || (is_masked(got) && is_masked(want)))
      continue;
    if (!(std::abs(got - want) <= wide * limits->second.data()[i])) return false;
  }
  return true;
}

void Distances::add(Progress& p, const std::string& name, double remains) const {
  p.traced += remains;
  if (name == first_) p.distance.at_first = remains;
  if (!p.screen) return;
  if (name == first_ && !(remains < of_definition_.at_first)) throw Ended();
  if (p.traced > p.bound) throw Ended();
}

void Distances::see_tensor(Progress& p, const std::string& name, View<double, 2> x) const {
  const auto found = values_.find(name);
  if (found == values_.end()) return;
  if (p.screen && !agrees(name, x)) {
    p.distance.excluded = true;
    throw Ended();
  }
  // The order in which experts are named means nothing; mlp.experts shows what weights do.
  if (within_layer(name) == names::gate_weights) return;
  add(p, name, found->second.shape() == x.shape ? nmse(x, found->second) : worst);
}

/// The candidate's choice, without keys that its query cannot see: those that a variant masks stay.
std::vector<Index> Distances::visible_row(const std::string& name, Index t, Index n) const {
  const std::vector<Index>& documents = candidate_.sequences.front().documents;
  const bool selection = is_selection(name);
  std::vector<Index> ids;
  for (const double id : decisions_.ids(name).view()[t]) {
    if (!(id >= 0)) continue;
    const auto s = static_cast<Index>(std::min(id, static_cast<double>(n)));
    if (selection &&
        (s > t || documents[static_cast<std::size_t>(s)] != documents[static_cast<std::size_t>(t)]))
      continue;
    ids.push_back(s);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

/// Adds 1 - |both| / |either|, the mean over rows.
void Distances::see_decision(Progress& p, const std::string& name, View<const double, 2> scores,
                             View<Index, 2> chosen) const {
  if (!decisions_.contains(name)) return;
  const Sequence& sequence = candidate_.sequences.front();
  double sum = 0, rows = 0;
  for (Index t = 0; t < std::min(sequence.size(), decisions_.ids(name).shape()[0]); ++t) {
    if (sequence.documents[static_cast<std::size_t>(t)] < 0) continue;
    sum += 1 - jaccard(sorted_set(chosen[t]), visible_row(name, t, scores.shape[1]));
    ++rows;
  }
  add(p, name, sum / std::max(rows, 1.0));
}

void Distances::run_sequence(Progress& p, const Variant& altered, std::size_t b) const {
  const Sequence& sequence = candidate_.sequences[b];
  const bool logits = !candidate_.logits.empty(), traced = b == 0 && !candidate_.trace.empty();
  RunOptions run;
  run.span = {0, altered.model.config.num_hidden_layers};
  run.record_decisions = false;
  run.head =
      logits || candidate_.trace.contains(names::norm) || candidate_.trace.contains(names::lm_head);
  if (traced) {
    run.graft = [&](const std::string& name, View<double, 2> x) { see_tensor(p, name, x); };
    run.decide = [&](const std::string& name, View<const double, 2> scores, View<Index, 2> chosen) {
      see_decision(p, name, scores, chosen);
    };
  }
  const Run mine = run_reference(altered.model, sequence, altered.ops, run);
  for (Index t = 0; logits && t < sequence.size(); ++t) {
    if (sequence.documents[static_cast<std::size_t>(t)] < 0) continue;
    const double kl = kl_divergence(candidate_.logits[b].view()[t], mine.logits.view()[t]);
    p.kl_sum += std::isfinite(kl) ? kl : worst;
    p.distance.kl_max = std::max(p.distance.kl_max, std::isfinite(kl) ? kl : worst);
  }
  if (p.screen && p.traced + p.kl_sum / std::max(rows_, 1.0) > p.bound) throw Ended();
}

Distance Distances::run(const Variant& altered, bool screen, double bound) const {
  Progress p;
  p.screen = screen, p.bound = bound;
  const bool logits = !candidate_.logits.empty();
  try {
    const std::size_t count = logits ? candidate_.logits.size() : 1;  // a trace is of sequence 0
    for (std::size_t b = 0; b < count; ++b) run_sequence(p, altered, b);
    p.distance.sum = p.kl_sum / std::max(rows_, 1.0) + p.traced;
  } catch (const Ended&) {
    p.distance.sum = inf;
  }
  if (!logits) p.distance.kl_max = std::numeric_limits<double>::quiet_NaN();
  return p.distance;
}

Distance Distances::screened(const Variant& altered, double bound) const {
  return run(altered, true, bound);
}

}  // namespace dsa::verify
