#include "verify/limits/explain.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <queue>
#include <set>

#include "core/random.hpp"
#include "verify/measure/divergence.hpp"
#include "verify/measure/infinity.hpp"
#include "verify/measure/least_squares.hpp"
#include "verify/measure/selection.hpp"

namespace dsa::verify {
namespace {

/// One token's decisions, by subscript in order of execution: the sets that are forced.
using Forced = std::map<std::size_t, std::vector<Index>>;

/// A replay of one token with some decisions forced.
struct Trial {
  Forced forced;
  double kl = inf;
  std::vector<Decision> decisions;
  Tensor<double, 2> logits;
};
struct Worse {
  bool operator()(const Trial& a, const Trial& b) const { return a.kl > b.kl; }
};

/// Forgets every token from `size` on.
void truncate(reference::Cache<double>& cache, Index size) {
  const auto old = static_cast<std::size_t>(cache.seen.size()),
             now = static_cast<std::size_t>(size);
  if (old == 0) return;
  for (reference::LayerCache<double>& layer : cache.layers)
    for (std::vector<double>* rows : {&layer.c_kv, &layer.k_rope, &layer.k_index})
      rows->resize(rows->size() / old * now);
  cache.seen.tokens.resize(now);
  cache.seen.positions.resize(now);
  cache.seen.documents.resize(now);
}

Sequence token_at(const Sequence& sequence, Index t) {
  const auto i = static_cast<std::size_t>(t);
  return {{sequence.tokens[i]}, {sequence.positions[i]}, {sequence.documents[i]}};
}

/// The replay at one token.
class Replay {
 public:
  Replay(const Variant& definition, const Sequence& sequence, const Tensor<double, 2>& theirs,
         const Run& base, const IsFixed& known)
      : definition_(definition), sequence_(sequence), theirs_(theirs), base_(base), known_(known) {}

  /// Runs token t with these decisions forced; the cache is left as it was.
  Trial run(Index t, Forced forced) {
    Trial trial{std::move(forced), inf, {}, {}};
    advance(t, trial);
    truncate(cache_, t);
    return trial;
  }

  /// Runs token t for good.
  void keep(Index t, Trial trial) {
    trial.decisions.clear();
    advance(t, trial);
  }

 private:
  void advance(Index t, Trial& trial) {
    reference::Pass<double> pass{definition_.model, definition_.ops};
    pass.tap.decision = [&](const std::string& name, View<const double, 2> scores,
                            View<Index, 2> chosen) {
      if (known_(name)) force(chosen[0], sorted_set(base_.find(name)->chosen.view()[t]));
      const auto forced = trial.forced.find(trial.decisions.size());
      if (forced != trial.forced.end() && is_wellformed(forced->second, scores[0], chosen.shape[1]))
        force(chosen[0], forced->second);
      Decision decision{name, Tensor<double, 2>(scores.shape), Tensor<Index, 2>(chosen.shape)};
      std::copy(scores.begin(), scores.end(), decision.scores.begin());
      std::copy(chosen.begin(), chosen.end(), decision.chosen.begin());
      trial.decisions.push_back(std::move(decision));
    };
    trial.logits = reference::forward(pass, token_at(sequence_, t), cache_);
    trial.kl = larger_kl(theirs_.view()[t], trial.logits.view()[0]);
    if (std::isnan(trial.kl)) trial.kl = inf;
  }

  static void force(View<Index, 1> chosen, const std::vector<Index>& set) {
    std::fill(chosen.begin(), chosen.end(), -1);
    std::copy(set.begin(), set.end(), chosen.begin());
  }

  const Variant& definition_;
  const Sequence& sequence_;
  const Tensor<double, 2>& theirs_;
  const Run& base_;
  const IsFixed& known_;
  reference::Cache<double> cache_;
};

/// Keys that rounding could have swapped: chosen ones that could have been left out, and others
/// that could have taken their place.
struct Swappable {
  std::vector<Index> chosen, leave, enter;
};

Swappable loose_keys(const Decision& decision, double noise) {
  const auto scores = decision.scores.view()[0];
  Swappable loose;
  loose.chosen = sorted_set(decision.chosen.view()[0]);
  const std::set<Index> in(loose.chosen.begin(), loose.chosen.end());
  double weakest = inf, strongest = -inf;
  for (Index s = 0; s < scores.size(); ++s)
    (in.contains(s) ? weakest : strongest) =
        in.contains(s) ? std::min(weakest, scores(s)) : std::max(strongest, scores(s));
  for (Index s : loose.chosen)
    if (scores(s) - strongest <= noise) loose.leave.push_back(s);
  for (Index s = 0; s < scores.size(); ++s)
    if (!in.contains(s) && scores(s) > -inf && weakest - scores(s) <= noise)
      loose.enter.push_back(s);
  return loose;
}

/// The chosen keys with some given up and as many taken.
std::vector<Index> swapped(const Swappable& loose, const std::vector<Index>& out,
                           const std::vector<Index>& into) {
  std::vector<Index> set;
  for (Index s : loose.chosen)
    if (std::find(out.begin(), out.end(), s) == out.end()) set.push_back(s);
  set.insert(set.end(), into.begin(), into.end());
  std::sort(set.begin(), set.end());
  return set;
}

/// Every set that differs from the chosen one by one swap that rounding could have made, and the
/// one with all such pairs the other way round (another rule for ties).
std::vector<std::vector<Index>> neighbours(const Decision& decision, double noise) {
  const auto scores = decision.scores.view()[0];
  const Swappable loose = loose_keys(decision, noise);
  std::vector<std::vector<Index>> sets;
  for (Index a : loose.leave)
    for (Index b : loose.enter)
      if (scores(a) - scores(b) <= noise) sets.push_back(swapped(loose, {a}, {b}));
  if (loose.leave.size() > 1 && loose.enter.size() > 1) {
    const auto n = static_cast<long>(std::min(loose.leave.size(), loose.enter.size()));
    sets.push_back(swapped(loose, {loose.leave.begin(), loose.leave.begin() + n},
                           {loose.enter.end() - n, loose.enter.end()}));
  }
  return sets;
}

/// The largest gap that a swap from `ours` to `theirs` needed noise to close.
double gap_of(View<const double, 1> scores, const std::vector<Index>& without,
              const std::vector<Index>& with) {
  double strongest = -inf, weakest = inf;
  for (Index s : without) strongest = std::max(strongest, scores(s));
  for (Index s : with) weakest = std::min(weakest, scores(s));
  return std::max(0.0, strongest - weakest);
}

/// The decisions of the accepted trial that its own scores would not have made.
void note_flips(const Variant& definition, const Trial& trial, Index t, const Limits& limits,
                std::vector<Flip>& flips) {
  for (const auto& [i, set] : trial.forced) {
    const Decision& decision = trial.decisions[i];
    Tensor<Index, 2> own(decision.chosen.shape());
    definition.ops.topk_select(decision.name, own, decision.scores);
    const std::vector<Index> ours = sorted_set(own.view()[0]);
    Flip flip;
    flip.name = decision.name;
    flip.position = t;
    std::set_difference(ours.begin(), ours.end(), set.begin(), set.end(),
                        std::back_inserter(flip.without));
    std::set_difference(set.begin(), set.end(), ours.begin(), ours.end(),
                        std::back_inserter(flip.with));
    if (flip.with.empty()) continue;
    flip.margin = gap_of(decision.scores.view()[0], flip.without, flip.with);
    flip.noise = limits.margin_noise(decision.name, t);
    flips.push_back(std::move(flip));
  }
}

/// A flip to try: decision i of the token chooses this set.
struct Turn {
  std::size_t i;
  std::vector<Index> set;
};

/// Every flip that the noise allows from here, in an order that depends on the place alone.
std::vector<Turn> turns_from(const Trial& from, Index t, const Limits& limits,
                             const IsFixed& known) {
  std::vector<Turn> turns;
  for (std::size_t i = 0; i < from.decisions.size(); ++i) {
    const Decision& decision = from.decisions[i];
    if (known(decision.name)) continue;
    for (auto& set : neighbours(decision, limits.margin_noise(decision.name, t)))
      turns.push_back({i, std::move(set)});
  }
  for (std::size_t i = turns.size(); i > 1; --i)  // Fisher-Yates
    std::swap(turns[i - 1], turns[random_bits(static_cast<std::uint64_t>(t), i) % i]);
  return turns;
}

/// Search over swaps: from the trial with the smallest KL, the first flip that improves it is
/// taken; where none does, the next best trial is tried.
Trial search(Replay& replay, Index t, Trial start, double limit, const Limits& limits,
             const IsFixed& known, int budget, int& spent) {
  std::set<Forced> seen = {start.forced};
  std::priority_queue<Trial, std::vector<Trial>, Worse> open;
  Trial best = start;
  open.push(std::move(start));
  while (!open.empty() && spent < budget) {
    const Trial from = open.top();
    open.pop();
    for (Turn& turn : turns_from(from, t, limits, known)) {
      Forced forced = from.forced;
      forced[turn.i] = std::move(turn.set);
      if (!seen.insert(forced).second) continue;
      Trial next = replay.run(t, std::move(forced));
      ++spent;
      const bool better = next.kl < from.kl;
      if (next.kl < best.kl) best = next;
      if (best.kl <= limit || spent >= budget) return best;
      open.push(std::move(next));
      if (better) break;
    }
  }
  return best;
}

/// One decision that a fit may flip.
struct Turnable {
  std::size_t i;
  Swappable loose;
};

std::vector<double> difference(View<const double, 1> a, View<const double, 1> b) {
  std::vector<double> d(static_cast<std::size_t>(a.size()));
  for (Index v = 0; v < a.size(); ++v) d[static_cast<std::size_t>(v)] = a(v) - b(v);
  return d;
}

/// The `count` keys of largest weight.
std::vector<Index> heaviest(const std::vector<Index>& keys, const double* weights,
                            std::size_t count) {
  std::vector<std::size_t> order(keys.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return weights[a] > weights[b]; });
  std::vector<Index> best;
  for (std::size_t j = 0; j < std::min(count, keys.size()); ++j) best.push_back(keys[order[j]]);
  return best;
}

/// The sets that a decision's weights (of `leave`, then of `enter`) round to. The first key of
/// `enter` has no weight: it came if otherwise more went than came; where the counts differ by more
/// all of them are tried.
std::vector<std::vector<Index>> rounded(const Swappable& loose, const double* weights) {
  const std::size_t m = loose.leave.size(), n = loose.enter.size();
  const auto ones = [](const double* first, std::size_t size) {
    return static_cast<std::size_t>(
        std::count_if(first, first + size, [](double x) { return x > 0.5; }));
  };
  const std::vector<Index> others(loose.enter.begin() + 1, loose.enter.end());
  const double* of_others = weights + m + 1;
  const std::size_t gone = ones(weights, m), come = ones(of_others, n - 1);
  std::vector<std::vector<Index>> sets;
  for (std::size_t k : std::set<std::size_t>{gone, come, come + 1}) {
    if (k == 0 || k > std::min(m, n)) continue;
    const std::vector<Index> out = heaviest(loose.leave, weights, k);
    std::vector<Index> into = heaviest(others, of_others, k - 1);
    into.push_back(loose.enter.front());
    sets.push_back(swapped(loose, out, into));
    if (k < n) sets.push_back(swapped(loose, out, heaviest(others, of_others, k)));
  }
  return sets;
}

/// Swaps add up as long as each changes the logits little: which keys went and which came is then
/// a linear system in zeros and ones, solved in real numbers and rounded.
Trial fit(Replay& replay, Index t, const Trial& from, View<const double, 1> theirs,
          const Limits& limits, const IsFixed& known, int& spent) {
  const auto ours = from.logits.view()[0];
  const auto with = [&](std::size_t i, std::vector<Index> set) {
    Forced forced = from.forced;
    forced[i] = std::move(set);
    ++spent;
    return difference(replay.run(t, std::move(forced)).logits.view()[0], ours);
  };
  std::vector<Turnable> turnable;
  std::vector<std::vector<double>> columns;
  for (std::size_t i = 0; i < from.decisions.size(); ++i) {
    const Decision& decision = from.decisions[i];
    if (known(decision.name)) continue;
    Turnable a{i, loose_keys(decision, limits.margin_noise(decision.name, t))};
    if (a.loose.leave.empty() || a.loose.enter.empty()) continue;
    const Index first_out = a.loose.leave.front(), first_in = a.loose.enter.front();
    for (Index s : a.loose.leave) columns.push_back(with(i, swapped(a.loose, {s}, {first_in})));
    const std::vector<double> both = columns[columns.size() - a.loose.leave.size()];
    for (Index s : a.loose.enter) {
      std::vector<double> d = s == first_in ? both : with(i, swapped(a.loose, {first_out}, {s}));
      for (std::size_t v = 0; v < d.size(); ++v) d[v] -= both[v];
      columns.push_back(std::move(d));
    }
    turnable.push_back(std::move(a));
  }
  if (turnable.empty() || columns.size() > static_cast<std::size_t>(ours.size())) return from;
  const std::vector<double> z = least_squares(columns, difference(theirs, ours));
  Trial best = from;
  const double* at = z.data();
  for (const Turnable& a : turnable) {  // one decision after the other, the best of its sets
    for (auto& set : rounded(a.loose, at)) {
      Forced forced = best.forced;
      forced[a.i] = std::move(set);
      Trial next = replay.run(t, std::move(forced));
      ++spent;
      if (next.kl < best.kl) best = std::move(next);
    }
    at += a.loose.leave.size() + a.loose.enter.size();
  }
  return best;
}

/// Fits again from where the last fit led, as long as that is downhill.
Trial refit(Replay& replay, Index t, Trial trial, View<const double, 1> theirs, double limit,
            const Limits& limits, const IsFixed& known, int budget, int& spent) {
  while (!(trial.kl <= limit) && spent < budget) {
    Trial next = fit(replay, t, trial, theirs, limits, known, spent);
    if (!(next.kl < trial.kl)) break;
    trial = std::move(next);
  }
  return trial;
}

/// Every forced set is one that the noise could have chosen from the scores it finally met.
bool within_noise(const Variant& definition, const Trial& trial, Index t, const Limits& limits) {
  std::vector<Flip> flips;
  note_flips(definition, trial, t, limits, flips);
  return std::all_of(flips.begin(), flips.end(), [](const Flip& f) { return f.margin <= f.noise; });
}

/// How many decisions a correct run flips: each with probability P(noise > margin).
void expect_flips(Explanation& explanation, const Run& base, const Limits& limits,
                  const IsFixed& known, double alpha) {
  double variance = 0;
  for (const Decision& decision : base.decisions) {
    if (known(decision.name)) continue;
    for (Index t = 0; t < decision.scores.shape()[0]; ++t) {
      const double gap = margin(decision.scores.view()[t], decision.chosen.view()[t]);
      const double spread = limits.margin_spread.at(decision.name)[static_cast<std::size_t>(t)];
      if (!std::isfinite(gap) || (spread == 0 && gap > 0)) continue;
      const double p = gap == 0 ? 0.5 : 0.5 * std::erfc(gap / spread / std::numbers::sqrt2);
      explanation.expected += p;
      variance += p * (1 - p);
    }
  }
  const double l = std::log(1 / alpha);
  explanation.most = explanation.expected + l / 3 + std::sqrt(l * l / 9 + 2 * variance * l);
}

}  // namespace

Explanation explain(const Variant& definition, const Sequence& sequence,
                    const Tensor<double, 2>& theirs, const Run& base, const Limits& limits,
                    const IsFixed& known, double alpha, const ExplainOptions& options) {
  Explanation explanation;
  expect_flips(explanation, base, limits, known, alpha);
  Replay replay(definition, sequence, theirs, base, known);
  int budget = options.trials_per_row;
  for (Index t = 0; t < sequence.size(); ++t) {
    const bool padding = sequence.documents[static_cast<std::size_t>(t)] < 0;
    const double limit = limits.kl[static_cast<std::size_t>(t)];
    Trial trial = replay.run(t, {});
    const double untouched = trial.kl;
    if (!padding && !(trial.kl <= limit) && budget > 0) {
      int spent = 0;
      Trial fitted = refit(replay, t, trial, theirs.view()[t], limit, limits, known, budget, spent);
      if (fitted.kl <= limit)
        trial = std::move(fitted);
      else
        trial = search(replay, t, std::move(trial), limit, limits, known, budget, spent);
      if (trial.kl <= limit && within_noise(definition, trial, t, limits))
        note_flips(definition, trial, t, limits, explanation.flips);
      else
        trial = Trial{{}, untouched, {}, {}}, budget /= 2;  // our own decisions stand
    }
    explanation.kl.push_back(trial.kl);
    explanation.explained.push_back(trial.kl <= limit);
    replay.keep(t, std::move(trial));
  }
  return explanation;
}

}  // namespace dsa::verify
