#include "verify/training/rehearsal.hpp"

#include <algorithm>
#include <cmath>

#include "core/threads.hpp"
#include "verify/measure/stats.hpp"

namespace dsa::verify {
namespace {

using reference::Precision;

std::vector<std::string> quantities_of(const Trajectory& t) {
  std::vector<std::string> names;
  for (const auto& [name, value] : t.steps.front()) names.push_back(name);
  return names;
}

/// One step of the definition and of every draw.
void step(Rehearsal& out, Replay& base, std::vector<Replay>& draws, const Sequence& batch,
          const Recipe& recipe, bool held) {
  const Index n = base.steps(), runs = static_cast<Index>(draws.size());
  Decisions mine;
  std::vector<Decisions> theirs(draws.size());
  const Replay before = base;
  Watch watch(mine, nullptr);
  out.base.push_back(base.step(batch, watch.alter(), watch.tap()));
  std::vector<StepRecord> records(draws.size());
  parallel_for(runs, 1'000'000, [&](Index r) {
    const auto i = static_cast<std::size_t>(r);
    Watch along(theirs[i], held ? &mine : nullptr);
    records[i] = draws[i].step(batch, along.alter(), along.tap());
  });
  StepRecord spread;
  for (const auto& [name, value] : out.base.back()) {
    double squares = 0;
    for (const StepRecord& record : records) squares += std::pow(record.at(name) - value, 2);
    spread[name] = std::sqrt(squares / static_cast<double>(runs));
  }
  out.spread.push_back(std::move(spread));
  out.near.push_back(held ? near_decisions(mine, theirs, n, recipe) : std::vector<NearDecision>{});
  if (!out.near.back().empty()) out.before.emplace(n, before);
}

}  // namespace

Rehearsal rehearse(const Model& model, const Recipe& recipe, const Trajectory& recorded,
                   Precision precision, const Draws& draws) {
  const auto quantities = quantities_of(recorded);
  Replay base(model, {recipe}, quantities);
  std::vector<Replay> rounded;
  for (int run = 0; run < draws.runs; ++run)
    rounded.emplace_back(model, Procedure{recipe}, quantities,
                         Roundings{precision, draws.seed + static_cast<std::uint64_t>(run)});
  Rehearsal out;
  for (const Sequence& batch : recorded.batches)
    step(out, base, rounded, batch, recipe, precision != Precision::hf_bf16);
  for_each_tensor(model.weights, model.config, [&](const std::string& name, auto&&...) {
    if (!base.trains(name) || norm(base[name]) == 0) return;
    out.finals.emplace_back(name, base[name]);
    std::vector<double> whole, element;
    for (const Replay& run : rounded) {
      const GradientDistance d = distance(run[name], base[name]);
      whole.push_back(d.whole), element.push_back(d.element);
    }
    out.whole.push_back(std::move(whole)), out.element.push_back(std::move(element));
  });
  out.end = std::move(base);
  return out;
}

/// The draws leave out a loss's own arithmetic: a mean over rows of logarithms of at most
/// ln(choices), each rounded twice, and their sum, in the worst order.
TrainingLimits::TrainingLimits(const Rehearsal& rehearsal, const Model& model, const Recipe& recipe,
                               const Trajectory& recorded, Precision precision, const Draws& draws)
    : rehearsal_(rehearsal),
      unit_(precision == Precision::fp64 ? 0x1p-53 : 0x1p-24),
      runs_(draws.runs),
      rate_(recipe.schedule.lr),
      whole_(rehearsal.whole),
      element_(rehearsal.element) {
  const Index T = recorded.batches.front().size();
  const auto rows = static_cast<double>(T);
  own_ = unit_ * 2 * std::log(static_cast<double>(std::max(model.config.vocab_size, T))) /
         std::sqrt(rows);
  summed_ = unit_ * std::sqrt(rows) / 3;
  const std::size_t checks =
      recorded.steps.size() * recorded.steps.front().size() + 2 * rehearsal.finals.size();
  tail_ = draws.alpha / static_cast<double>(2 * checks);
}

/// Student's t times the spread of the draws, which is that of the step, or of the five around it
/// where that is more; and the loss's own arithmetic; and what the printed format takes. A rate is
/// a few operations on the schedule's full rate.
double TrainingLimits::of(const std::string& quantity, Index step) const {
  constexpr Index around = 2;
  if (quantity == "lr") return 8 * unit_ * rate_;
  const auto N = static_cast<Index>(rehearsal_.spread.size());
  const auto spread = [&](Index n) {
    return rehearsal_.spread[static_cast<std::size_t>(n)].at(quantity);
  };
  const Index first = std::max<Index>(0, step - around), end = std::min(N, step + around + 1);
  const auto steps = static_cast<double>(end - first);
  double squares = 0;
  for (Index n = first; n < end; ++n) squares += spread(n) * spread(n) / steps;
  const bool is_loss = quantity != "grad_norm";
  const double drawn = std::max(spread(step), std::sqrt(squares)),
               value = std::abs(rehearsal_.base[static_cast<std::size_t>(step)].at(quantity)),
               own = is_loss ? std::hypot(own_, summed_ * value) : 0;
  return student_quantile(runs_ * steps, tail_) *
             std::sqrt(drawn * drawn * (1 + 1 / (runs_ * steps)) + own * own) +
         unit_ * value;
}

}  // namespace dsa::verify
