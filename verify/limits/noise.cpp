#include "verify/limits/noise.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <numeric>

#include "core/random.hpp"
#include "core/threads.hpp"
#include "verify/limits/held_runs.hpp"
#include "verify/measure/divergence.hpp"
#include "verify/measure/infinity.hpp"
#include "verify/measure/selection.hpp"
#include "verify/measure/stats.hpp"

namespace dsa::verify {
namespace {

/// The fewest runs from which a spread of one element, or one row, can be estimated.
constexpr int runs_for_one = 4;

/// Sums over held runs.
struct NoiseSums {
  std::vector<std::vector<double>> kl;                 // [run][row]
  Tensor<double, 2> logits;                            // of squared deviations, (T, V)
  std::map<std::string, Tensor<double, 2>> tensors;    // (T, width)
  std::map<std::string, Tensor<double, 2>> scores;     // (T, S)
  std::map<std::string, std::vector<double>> margins;  // (T)
};

void add_squares(Tensor<double, 2>& sum, View<const double, 2> x, View<const double, 2> base) {
  if (sum.size() == 0) sum = Tensor<double, 2>(base.shape);
  auto out = sum.begin();
  for (Index i = 0; i < base.size(); ++i, ++out) {
    const double d = x.data[i] - base.data[i];
    if (std::isfinite(d)) *out += d * d;
  }
}

void add(NoiseSums& sums, const Run& run, const Run& base) {
  if (base.logits.size() > 0) {
    add_squares(sums.logits, run.logits, base.logits);
    std::vector<double> kl;
    for (Index t = 0; t < base.logits.shape()[0]; ++t)
      kl.push_back(larger_kl(base.logits.view()[t], run.logits.view()[t]));
    sums.kl.push_back(std::move(kl));
  }
  for (const Trace::Entry& entry : base.trace.entries())
    add_squares(sums.tensors[entry.name], run.trace.at(entry.name).values(), entry.values());
  for (const Decision& decision : base.decisions) {
    const Decision& mine = *run.find(decision.name);
    add_squares(sums.scores[decision.name], mine.scores, decision.scores);
    std::vector<double>& margins = sums.margins[decision.name];
    const Index T = decision.scores.shape()[0];
    margins.resize(static_cast<std::size_t>(T));
    for (Index t = 0; t < T; ++t) {
      const double d = margin(mine.scores.view()[t], decision.chosen.view()[t]) -
                       margin(decision.scores.view()[t], decision.chosen.view()[t]);
      if (std::isfinite(d)) margins[static_cast<std::size_t>(t)] += d * d;
    }
  }
}

/// A mean of squared deviations.
struct Spread {
  double sum = 0, count = 0;
  void add(double variance) { sum += variance, ++count; }
  double mean() const { return count == 0 ? 0 : sum / count; }
};

/// The error every element may have, in place of M runs' squared deviations. An element's spread is
/// its row's, times how much its column stands out; with runs enough also its own, whichever is
/// more. With few runs a row may have been lucky, and its spread is at least that of all rows; then
/// the numbers of its size may also stand out, since rounding errors grow with what is rounded.
Tensor<double, 2> allowed_of(Tensor<double, 2> squares, const Tensor<double, 2>& base, int runs,
                             double tail, ElementOrigin& origin) {
  const Index T = squares.shape()[0], W = squares.shape()[1];
  const double M = runs;
  const bool few = runs < runs_for_one;
  const auto size_of = [](double x) { return x == 0 ? -1075 : std::ilogb(x); };
  std::vector<Spread> row(static_cast<std::size_t>(T)), column(static_cast<std::size_t>(W));
  std::map<int, Spread> size;
  Spread all;
  for (Index t = 0; t < T; ++t)
    for (Index c = 0; c < W; ++c) {
      if (!std::isfinite(base(t, c))) continue;
      const double variance = squares(t, c) / M;
      row[static_cast<std::size_t>(t)].add(variance);
      column[static_cast<std::size_t>(c)].add(variance);
      all.add(variance);
      if (few) size[size_of(base(t, c))].add(variance);
    }
  origin.tail = tail;
  origin.pooled_freedom = M * static_cast<double>(std::min(T, W));
  origin.pooled = student_quantile(origin.pooled_freedom, tail);
  origin.own_freedom = M;
  origin.own = few ? 0 : student_quantile(M, tail);
  for (const Spread& spread : row)
    origin.row.push_back(std::sqrt(few ? std::max(spread.mean(), all.mean()) : spread.mean()));
  const auto stands_out = [&](double variance) {
    return all.mean() > 0 ? std::max(1.0, std::sqrt(variance / all.mean())) : 1;
  };
  for (const Spread& spread : column) origin.column.push_back(stands_out(spread.mean()));
  for (Index t = 0; t < T; ++t)
    for (Index c = 0; c < W; ++c) {
      if (!std::isfinite(base(t, c))) continue;
      double factor = origin.column[static_cast<std::size_t>(c)];
      if (few) factor = std::max(factor, stands_out(size[size_of(base(t, c))].mean()));
      squares(t, c) = std::max(origin.pooled * origin.row[static_cast<std::size_t>(t)] * factor,
                               origin.own * std::sqrt(squares(t, c) / M));
    }
  return squares;
}

/// Mean over runs of one row's KL, or of all rows' where the runs are too few.
std::vector<double> kl_means(const NoiseSums& sums) {
  const std::size_t M = sums.kl.size(), T = sums.kl.front().size();
  std::vector<double> mean(T);
  for (const auto& run : sums.kl)
    for (std::size_t t = 0; t < T; ++t) mean[t] += run[t] / static_cast<double>(M);
  if (static_cast<int>(M) < runs_for_one) {
    const double all = std::accumulate(mean.begin(), mean.end(), 0.0) / static_cast<double>(T);
    std::fill(mean.begin(), mean.end(), all);
  }
  return mean;
}

/// The squared coefficient of variation of a row's KL: rows differ in it, so that of the row at 95
/// % of them stands for all. Too few runs to know a row's: that of all rows as one sample.
double variation_of(const NoiseSums& sums, const std::vector<double>& mean, bool pooled) {
  const auto M = static_cast<double>(sums.kl.size());
  std::vector<double> rows;
  double all = 0;
  for (std::size_t t = 0; t < mean.size(); ++t) {
    if (!(mean[t] > 0)) continue;
    double squares = 0;
    for (const auto& run : sums.kl) squares += std::pow(run[t] / mean[t] - 1, 2);
    all += squares / M;
    rows.push_back(squares / std::max(1.0, M - 1));
  }
  if (rows.empty()) return 2;  // one degree of freedom: the most that a sum of squares can vary
  if (pooled) return all / static_cast<double>(rows.size());
  const auto at = rows.begin() + static_cast<long>(0.95 * static_cast<double>(rows.size() - 1));
  std::nth_element(rows.begin(), at, rows.end());
  return *at;
}

void limit_kl(Limits& limits, const NoiseSums& sums, const Run& base, double alpha) {
  const std::vector<double> mean = kl_means(sums);
  const double M = static_cast<double>(sums.kl.size()), T = static_cast<double>(mean.size());
  const bool pooled = sums.kl.size() < static_cast<std::size_t>(runs_for_one);
  limits.kl_variation = std::max(1e-6, variation_of(sums, mean, pooled));
  KlOrigin& origin = limits.kl_origin;
  origin.tail = alpha / std::max(1.0, T);
  origin.numerator = 2 / limits.kl_variation;
  origin.denominator = origin.numerator * (pooled ? M * T : M);
  origin.factor = fisher_quantile(origin.numerator, origin.denominator, origin.tail);
  for (std::size_t t = 0; t < mean.size(); ++t)
    limits.kl.push_back(mean[t] * origin.factor +
                        kl_rounding(base.logits.view()[static_cast<Index>(t)]));
  origin.mean = mean;
}

/// Runs `one(m)` for m < count, side by side or one after the other, and hands the results to
/// `take` in order: sums do not depend on the number of threads. A thread that is late holds up no
/// other: what comes early is kept.
void take_in_order(int count, bool parallel, const std::function<Run(int)>& one,
                   const std::function<void(int, const Run&)>& take) {
  std::mutex taking;
  std::map<int, Run> early;
  int next = 0;
  parallel_for(count, parallel ? shared_loop_ns : 0, [&](Index m) {
    Run run = one(static_cast<int>(m));
    const std::lock_guard lock(taking);
    early.emplace(static_cast<int>(m), std::move(run));
    for (; !early.empty() && early.begin()->first == next; ++next) {
      take(next, early.begin()->second);
      early.erase(early.begin());
    }
  });
}

void copy_to(View<Index, 2> out, const Tensor<Index, 2>& in) {
  std::copy(in.begin(), in.end(), out.begin());
}

/// Randomised tie-break: the scores of a row move by up to the noise, ties are broken at random.
void break_ties(std::uint64_t seed, View<const double, 1> scores, double amplitude,
                View<Index, 1> chosen) {
  struct Candidate {
    Index s;
    double score, lot;
  };
  std::vector<Candidate> candidates;
  for (Index s = 0; s < scores.size(); ++s) {
    const auto i = static_cast<std::uint64_t>(s);
    if (scores(s) > -std::numeric_limits<double>::infinity())
      candidates.push_back(
          {s, scores(s) + amplitude * (2 * uniform(seed, 2 * i) - 1), uniform(seed, 2 * i + 1)});
  }
  const auto k = std::min<Index>(chosen.size(), static_cast<Index>(candidates.size()));
  std::partial_sort(candidates.begin(), candidates.begin() + k, candidates.end(),
                    [](const Candidate& a, const Candidate& b) {
                      return a.score != b.score ? a.score > b.score : a.lot < b.lot;
                    });
  for (Index i = 0; i < chosen.size(); ++i)
    chosen(i) = i < k ? candidates[static_cast<std::size_t>(i)].s : -1;
}

/// The first decision that a free run flipped and that row t depends on.
std::optional<NearTie> first_flipped(const Run& run, const Run& base, const Sequence& sequence,
                                     const Limits& limits, Index t) {
  for (const Decision& decision : base.decisions) {
    const Decision& mine = *run.find(decision.name);
    for (Index r = t; r >= 0; --r) {  // the row itself first, then the nearest before it
      if (sequence.documents[static_cast<std::size_t>(r)] !=
          sequence.documents[static_cast<std::size_t>(t)])
        break;
      if (sorted_set(mine.chosen.view()[r]) == sorted_set(decision.chosen.view()[r])) continue;
      return NearTie{decision.name, r, margin(decision.scores.view()[r], decision.chosen.view()[r]),
                     limits.margin_noise(decision.name, r)};
    }
  }
  return std::nullopt;
}

/// The most KL that free runs let a row have, by a gamma variable of their mean and variation, of
/// which that of the held runs is the least and that of one squared term the most.
double reach_of(const std::vector<std::vector<double>>& kl, std::size_t t, const Limits& limits,
                double tail) {
  const double M = static_cast<double>(kl.size());
  double mean = 0, squares = 0;
  for (const auto& run : kl) mean += run[t] / M;
  for (const auto& run : kl) squares += std::pow(run[t] - mean, 2);
  if (!(mean > 0) || kl.size() < static_cast<std::size_t>(runs_for_one)) return 0;
  const double variation =
      std::clamp(squares / (M - 1) / (mean * mean), std::min(limits.kl_variation, 2.0), 2.0);
  return mean * fisher_quantile(2 / variation, 2 / variation * M, tail);
}

}  // namespace

Limits measure_limits(const Perturbed& perturbed, const Sequence& sequence, const Run& base,
                      const RunOptions& options, const IsFixed& known, const NoiseOptions& noise) {
  const PerturbedRun forward = [&](std::uint64_t number, const Decide& held) {
    RunOptions run = options;
    run.decide = held;
    const Variant draw = perturbed(number);
    return run_reference(draw.model, sequence, draw.ops, run);
  };
  return measure_limits(forward, base, known, noise);
}

Limits measure_limits(const PerturbedRun& perturbed, const Run& base, const IsFixed& known,
                      const NoiseOptions& noise) {
  const double alpha = noise.alpha / 3 / static_cast<double>(noise.share);  // KL, logits, tensors
  const int M = noise.runs;
  NoiseSums sums;
  const Decide held = [&](const std::string& name, View<const double, 2>, View<Index, 2> chosen) {
    copy_to(chosen, base.find(name)->chosen);
  };
  const auto one = [&](int m) {
    return perturbed(random_bits(noise.seed, static_cast<std::uint64_t>(m)), held);
  };
  take_in_order(M, noise.parallel, one, [&](int m, const Run& run) {
    add(sums, run, base);
    if (noise.progress) noise.progress(m + 1, M);
  });

  Limits limits;
  Index elements = 1, rows = 0;
  for (const auto& [name, squares] : sums.tensors) elements += squares.size();
  for (const auto& [name, squares] : sums.scores) elements += squares.size();
  for (const auto& [name, margins] : sums.margins) rows += static_cast<Index>(margins.size());
  const auto tail = [&](Index n) { return alpha / 2 / static_cast<double>(std::max<Index>(n, 1)); };
  for (auto& [name, squares] : sums.tensors)
    limits.tensors[name] = allowed_of(std::move(squares), base.trace.at(name).values(), M,
                                      tail(elements), limits.tensor_origins[name]);
  for (auto& [name, squares] : sums.scores)
    limits.scores[name] = allowed_of(std::move(squares), base.find(name)->scores, M, tail(elements),
                                     limits.tensor_origins[name]);
  limits.margin_quantile = student_quantile(M, tail(rows));
  for (const auto& [name, margins] : sums.margins)
    for (double squares : margins) limits.margin_spread[name].push_back(std::sqrt(squares / M));
  for (const Decision& decision : base.decisions)
    for (Index t = 0; t < decision.scores.shape()[0] && !known(decision.name); ++t) {
      const double gap = margin(decision.scores.view()[t], decision.chosen.view()[t]);
      const double bound = limits.margin_noise(decision.name, t);
      if (std::isfinite(gap) && gap <= bound)
        limits.near_ties.push_back({decision.name, t, gap, bound});
    }
  if (base.logits.size() > 0) {
    const double share = tail(sums.logits.size());
    limits.logits = allowed_of(std::move(sums.logits), base.logits, M, share, limits.logits_origin);
    limit_kl(limits, sums, base, alpha);
  }
  return limits;
}

FreeRuns measure_reach(const Perturbed& perturbed, const Sequence& sequence, const Run& base,
                       const RunOptions& options, const IsFixed& known, const Limits& limits,
                       const NoiseOptions& noise) {
  FreeRuns result;
  std::vector<Reach>& reach = result.reach;
  reach.resize(static_cast<std::size_t>(sequence.size()));
  std::vector<bool> felt(reach.size());  // a decision that the row depends on was flipped
  if (limits.near_ties.empty()) return result;
  std::map<std::string, std::map<Index, double>> amplitude;  // of near-ties
  for (const NearTie& u : limits.near_ties) amplitude[u.name][u.position] = u.noise;

  const auto one = [&](int m) {
    const auto draw = static_cast<std::uint64_t>(noise.runs + m);
    RunOptions loose;
    loose.span = options.span;
    loose.decide = [&, draw](const std::string& name, View<const double, 2> scores,
                             View<Index, 2> chosen) {
      if (known(name)) return copy_to(chosen, base.find(name)->chosen);
      const auto rows = amplitude.find(name);
      if (rows == amplitude.end()) return;
      std::uint64_t seed = random_bits(noise.seed + 0x1075, draw);
      for (char c : name) seed = random_bits(seed, static_cast<unsigned char>(c));
      for (const auto& [t, bound] : rows->second)
        break_ties(random_bits(seed, static_cast<std::uint64_t>(t)), scores[t], bound, chosen[t]);
    };
    const Variant altered = perturbed(random_bits(noise.seed, draw));
    return run_reference(altered.model, sequence, altered.ops, loose);
  };
  take_in_order(noise.runs, noise.parallel, one, [&](int m, const Run& run) {
    if (noise.progress) noise.progress(m + 1, noise.runs);
    result.kl.emplace_back();
    for (Index t = 0; t < sequence.size(); ++t) {
      Reach& mine = reach[static_cast<std::size_t>(t)];
      const double kl = larger_kl(base.logits.view()[t], run.logits.view()[t]);
      result.kl.back().push_back(kl);
      if (mine.kl == inf || sequence.documents[static_cast<std::size_t>(t)] < 0) continue;
      const bool beyond = kl > limits.kl[static_cast<std::size_t>(t)];
      if (!beyond && felt[static_cast<std::size_t>(t)]) continue;
      if (const auto flipped = first_flipped(run, base, sequence, limits, t)) {
        mine = {beyond ? inf : 0, *flipped};
        felt[static_cast<std::size_t>(t)] = true;
      }
    }
  });
  const double tail =
      noise.alpha / 3 / static_cast<double>(noise.share) / static_cast<double>(sequence.size());
  for (std::size_t t = 0; t < reach.size(); ++t)
    if (felt[t] && reach[t].kl != inf) reach[t].kl = reach_of(result.kl, t, limits, tail);
  return result;
}

double limit_of_means(const std::vector<double>& means, double tail) {
  const auto M = static_cast<double>(means.size());
  if (M < 2) return std::numeric_limits<double>::infinity();
  double mean = 0, squares = 0;
  for (double x : means) mean += std::log(std::max(x, 1e-300)) / M;
  for (double x : means) squares += std::pow(std::log(std::max(x, 1e-300)) - mean, 2);
  const double spread = std::sqrt(squares / (M - 1) * (1 + 1 / M));
  return std::exp(mean + student_quantile(M - 1, tail) * spread);
}

std::string origin_of_kl_limit(const NoiseOptions& options, Index rows) {
  return fmt::format("{} perturbed runs ({}), Fisher F at {:.0e} over {} rows", options.runs,
                     options.precision, options.alpha / 3, rows);
}

std::string origin_of_element_limit(const NoiseOptions& options) {
  return fmt::format("{} perturbed runs ({}), Student t at {:.0e} over all elements", options.runs,
                     options.precision, options.alpha / 3);
}

}  // namespace dsa::verify
