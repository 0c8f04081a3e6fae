#include "verify/training/turned.hpp"

#include <algorithm>

#include "core/threads.hpp"

namespace dsa::verify {
namespace {

constexpr std::size_t most_turns = 8;    // of one run
constexpr std::size_t most_trials = 12;  // for one turn: those nearest to the departure
constexpr double helps = 0.5;            // of the error at a departure that stays where it is

/// How far a replay follows the found run.
struct Trial {
  std::vector<NearDecision> turns;
  std::vector<StepRecord> expected;
  std::optional<Replay> end;  // where all steps were taken
  Index departure = 0;        // the step, N: the final parameters, N + 1: none
  double error = 0;           // there
  double moved = 0;           // how far the turns moved the steps in question

  bool better_than(const Trial& other) const {
    return departure > other.departure ||
           (departure == other.departure && error < helps * other.error);
  }
};

class Search {
 public:
  Search(const Comparison& comparison, const Rehearsal& rehearsal,
         const std::vector<Sequence>& batches)
      : comparison_(comparison), rehearsal_(rehearsal), batches_(batches) {}

  Index steps() const { return static_cast<Index>(batches_.size()); }

  /// The definition's own run.
  Trial unturned() const {
    Trial trial;
    trial.expected = rehearsal_.base;
    trial.end = rehearsal_.end;
    for (Index n = 0; n < steps(); ++n)
      if (departs(trial, n, trial.expected[static_cast<std::size_t>(n)])) return trial;
    finish(trial);
    return trial;
  }

  /// From the first turned step on. `at`: the last step whose movement is asked for.
  Trial replay(std::vector<NearDecision> turns, Index at) const {
    Trial trial;
    Index first = steps();
    for (const NearDecision& d : turns) first = std::min(first, d.step);
    Replay run = rehearsal_.before.at(first);
    trial.expected.assign(rehearsal_.base.begin(), rehearsal_.base.begin() + first);
    for (Index n = first; n < steps(); ++n) {
      std::vector<NearDecision> now;
      for (const NearDecision& d : turns)
        if (d.step == n) now.push_back(d);
      Decisions seen;
      Watch watch(seen, nullptr, std::move(now));
      const auto i = static_cast<std::size_t>(n);
      trial.expected.push_back(run.step(batches_[i], watch.alter(), watch.tap()));
      if (n <= at)
        trial.moved =
            std::max(trial.moved, comparison_.between(n, trial.expected[i], rehearsal_.base[i]));
      trial.turns = turns;
      if (departs(trial, n, trial.expected[i])) return trial;
    }
    trial.end = std::move(run);
    finish(trial);
    return trial;
  }

  /// Decisions within the noise at the departure or before it, the latest first.
  std::vector<NearDecision> open(const Trial& at) const {
    std::vector<NearDecision> all;
    for (Index n = std::min(at.departure, steps() - 1); n >= 0; --n) {
      std::vector<NearDecision> here = rehearsal_.near[static_cast<std::size_t>(n)];
      std::sort(here.begin(), here.end(), [](const NearDecision& a, const NearDecision& b) {
        return a.margin * b.noise < b.margin * a.noise;
      });
      for (const NearDecision& d : here)
        if (all.size() < most_trials && !turned_already(at, d)) all.push_back(d);
    }
    return all;
  }

 private:
  static bool turned_already(const Trial& at, const NearDecision& d) {
    return std::any_of(at.turns.begin(), at.turns.end(), [&](const NearDecision& t) {
      return t.step == d.step && t.name == d.name && t.row == d.row && t.key == d.key &&
             t.other == d.other;
    });
  }

  bool departs(Trial& trial, Index step, const StepRecord& expected) const {
    trial.departure = step;
    trial.error = comparison_.of_step(step, expected);
    return trial.error > 1;
  }

  void finish(Trial& trial) const {
    trial.error = comparison_.of_finals(*trial.end);
    trial.departure = trial.error > 1 ? steps() : steps() + 1;
  }

  const Comparison& comparison_;
  const Rehearsal& rehearsal_;
  const std::vector<Sequence>& batches_;
};

}  // namespace

Turned turn_decisions(const Comparison& comparison, const Rehearsal& rehearsal,
                      const std::vector<Sequence>& batches) {
  const Search search(comparison, rehearsal, batches);
  const Index N = search.steps();
  Trial best = search.unturned();
  const Trial unturned = best;
  double moved = 0;  // by all turns together
  while (best.departure <= N && best.turns.size() < most_turns) {
    const std::vector<NearDecision> open = search.open(best);
    std::vector<Trial> trials(open.size());
    parallel_for(static_cast<Index>(open.size()), 1'000'000, [&](Index i) {
      std::vector<NearDecision> turns = best.turns;
      turns.push_back(open[static_cast<std::size_t>(i)]);
      trials[static_cast<std::size_t>(i)] = search.replay(std::move(turns), unturned.departure);
    });
    const Trial* next = &best;
    for (const Trial& trial : trials) {
      if (best.turns.empty()) moved += trial.moved;
      if (trial.better_than(*next)) next = &trial;
    }
    if (next == &best) break;
    best = Trial(*next);
  }
  Turned out{best.turns, best.expected, best.end, best.departure > N, false, -1};
  out.may_explain = !out.explains && unturned.error <= 1 + moved;
  for (Index n = 0; n < N && out.first < 0; ++n)
    if (!rehearsal.near[static_cast<std::size_t>(n)].empty()) out.first = n;
  return out;
}

}  // namespace dsa::verify
