#include "verify/diagnose/distance.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/trace_names.hpp"
#include "verify/judge/traces.hpp"
#include "verify/measure/divergence.hpp"
#include "verify/measure/selection.hpp"
#include "verify/runs/reference_run.hpp"

namespace dsa::verify {
namespace {

constexpr double worst = 1e3;  // stands for "no number"

/// sum (a-b)^2 / sum b^2 over the finite elements; 0 / 0 is 0.
double nmse(const Tensor<double, 2>& a, const Tensor<double, 2>& b) {
  double error = 0, norm = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const double x = a.data()[i], y = b.data()[i];
    if (!std::isfinite(x) || !std::isfinite(y) || std::abs(y) > 1e30) continue;
    error += (x - y) * (x - y), norm += y * y;
  }
  return error == 0 ? 0 : std::min(worst, error / norm);
}

/// 1 - |both| / |either|, the mean over rows.
double disagreement(const Decision& mine, const TracedDecisions& told, const Sequence& sequence) {
  double sum = 0, rows = 0;
  for (Index t = 0; t < sequence.size(); ++t) {
    if (sequence.documents[static_cast<std::size_t>(t)] < 0) continue;
    sum += 1 - jaccard(sorted_set(mine.chosen.view()[t]),
                       told.row(mine.name, t, mine.scores.view()[t]));
    ++rows;
  }
  return sum / std::max(rows, 1.0);
}

double of_trace(const Run& mine, const Recording& candidate, const Config& config) {
  double sum = 0;
  for (const Trace::Entry& entry : mine.trace.entries()) {
    const Tensor<double, 2> theirs = candidate.trace.at(entry.name).values(), ours = entry.values();
    // The order in which experts are named means nothing; mlp.experts shows what weights do.
    if (within_layer(entry.name) == names::gate_weights) continue;
    sum += theirs.shape() == ours.shape() ? nmse(ours, theirs) : worst;
  }
  const TracedDecisions told(candidate, config);
  for (const Decision& decision : mine.decisions)
    if (candidate.trace.contains(decision.name))
      sum += disagreement(decision, told, candidate.sequences[0]);
  return sum;
}

}  // namespace

Distance distance(const Variant& altered, const Recording& candidate) {
  Distance d;
  double rows = 0, kl_sum = 0, traced = 0;
  const bool logits = !candidate.logits.empty();
  const std::size_t count = logits ? candidate.logits.size() : 1;  // a trace is of sequence 0
  for (std::size_t b = 0; b < count; ++b) {
    const Sequence& sequence = candidate.sequences[b];
    RunOptions run;
    run.span = {0, altered.model.config.num_hidden_layers};
    run.record_decisions = b == 0 && !candidate.trace.empty();
    run.head = logits || candidate.trace.contains(names::norm);
    if (b == 0) run.keep = [&](const std::string& name) { return candidate.trace.contains(name); };
    const Run mine = run_reference(altered.model, sequence, altered.ops, run);
    if (b == 0) traced = of_trace(mine, candidate, altered.model.config);
    for (Index t = 0; logits && t < sequence.size(); ++t) {
      if (sequence.documents[static_cast<std::size_t>(t)] < 0) continue;
      const double kl = kl_divergence(candidate.logits[b].view()[t], mine.logits.view()[t]);
      kl_sum += std::isfinite(kl) ? kl : worst;
      d.kl_max = std::max(d.kl_max, std::isfinite(kl) ? kl : worst);
      ++rows;
    }
  }
  if (!logits) d.kl_max = std::numeric_limits<double>::quiet_NaN();
  d.sum = kl_sum / std::max(rows, 1.0) + traced;
  return d;
}

}  // namespace dsa::verify
