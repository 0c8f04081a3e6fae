#include "verify/noise.hpp"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/failure.hpp"
#include "core/random.hpp"
#include "verify/divergence.hpp"
#include "verify/selection.hpp"
#include "verify/stats.hpp"

namespace dsa::verify {
namespace {

using reference::Rounding;

/// The fewest runs from which a spread of one element, or one row, can be estimated.
constexpr int runs_for_one = 4;

/// Sums over held runs.
struct Sums {
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

void add(Sums& sums, const Run& run, const Run& base) {
  if (base.logits.size() > 0) {
    add_squares(sums.logits, run.logits, base.logits);
    std::vector<double> kl;
    for (Index t = 0; t < base.logits.shape()[0]; ++t)
      kl.push_back(kl_divergence(base.logits.view()[t], run.logits.view()[t]));
    sums.kl.push_back(std::move(kl));
  }
  for (const Trace::Entry& entry : base.trace.entries())
    add_squares(sums.tensors[entry.name], run.trace.find(entry.name)->values, entry.values);
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

/// The error every element may have, from M runs' squared deviations. An element's spread is its
/// row's, times how much its column stands out; with runs enough also its own, whichever is more.
Tensor<double, 2> allowed_of(const Tensor<double, 2>& squares, int runs, double tail) {
  const Index T = squares.shape()[0], W = squares.shape()[1];
  const double M = runs;
  std::vector<double> row(static_cast<std::size_t>(T)), column(static_cast<std::size_t>(W));
  double all = 0;
  for (Index t = 0; t < T; ++t)
    for (Index c = 0; c < W; ++c) {
      const double variance = squares(t, c) / M;
      row[static_cast<std::size_t>(t)] += variance / static_cast<double>(W);
      column[static_cast<std::size_t>(c)] += variance / static_cast<double>(T);
      all += variance / static_cast<double>(T * W);
    }
  const double pooled = student_quantile(M * static_cast<double>(std::min(T, W)), tail);
  const double own = runs >= runs_for_one ? student_quantile(M, tail) : 0;
  Tensor<double, 2> allowed({T, W});
  for (Index t = 0; t < T; ++t)
    for (Index c = 0; c < W; ++c) {
      const double stands_out =
          all > 0 ? std::max(1.0, std::sqrt(column[static_cast<std::size_t>(c)] / all)) : 1;
      allowed(t, c) = std::max(pooled * std::sqrt(row[static_cast<std::size_t>(t)]) * stands_out,
                               own * std::sqrt(squares(t, c) / M));
    }
  return allowed;
}

/// Mean over runs of one row's KL, or of all rows' where the runs are too few.
std::vector<double> kl_means(const Sums& sums) {
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

std::vector<double> kl_limits(const Sums& sums, const Run& base, double alpha) {
  const std::vector<double> mean = kl_means(sums);
  const double M = static_cast<double>(sums.kl.size()), T = static_cast<double>(mean.size());
  const bool pooled = sums.kl.size() < static_cast<std::size_t>(runs_for_one);
  double squares = 0, counted = 0;
  for (const auto& run : sums.kl)
    for (std::size_t t = 0; t < mean.size(); ++t)
      if (mean[t] > 0) squares += std::pow(run[t] / mean[t] - 1, 2), ++counted;
  // (M-1)/M of the samples are free where every row has a mean of its own.
  const double variation =
      counted == 0 ? 2 : std::max(1e-6, squares / counted * (pooled ? 1 : M / (M - 1)));
  const double freedom = 2 / variation;
  const double factor =
      fisher_quantile(freedom, freedom * (pooled ? M * T : M), alpha / std::max(1.0, T));
  std::vector<double> limits;
  for (std::size_t t = 0; t < mean.size(); ++t)
    limits.push_back(mean[t] * factor + kl_rounding(base.logits.view()[static_cast<Index>(t)]));
  return limits;
}

/// Runs `one(m)` for m < count, side by side or one after the other, and hands the results to
/// `take` in order: sums do not depend on the number of threads.
void in_batches(int count, bool parallel, const std::function<Run(int)>& one,
                const std::function<void(int, const Run&)>& take) {
  const int width = parallel ? std::max(1, omp_get_max_threads()) : 1;
  for (int first = 0; first < count; first += width) {
    const int batch = std::min(width, count - first);
    std::vector<Run> runs(static_cast<std::size_t>(batch));
    Failure failure;
#pragma omp parallel for schedule(dynamic) if (batch > 1)
    for (int i = 0; i < batch; ++i)
      failure.guard([&] { runs[static_cast<std::size_t>(i)] = one(first + i); });
    failure.rethrow();
    for (int i = 0; i < batch; ++i) take(first + i, runs[static_cast<std::size_t>(i)]);
  }
}

void copy_to(View<Index, 2> out, const Tensor<Index, 2>& in) {
  std::copy(in.begin(), in.end(), out.begin());
}

/// What free runs need to know of a decision: how far its scores may move, a row.
using Amplitudes = std::map<std::string, std::vector<double>>;

/// A row that may fall either way does: its scores move by up to the noise, ties by lot.
void cast_lots(std::uint64_t seed, View<const double, 1> scores, double amplitude,
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

/// The first decision of a free run that fell otherwise and that row t can have felt.
std::optional<Unsettled> first_turned(const Run& run, const Run& base, const Sequence& sequence,
                                      const Amplitudes& noise, Index t) {
  for (const Decision& decision : base.decisions) {
    const Decision& mine = *run.find(decision.name);
    for (Index r = t; r >= 0; --r) {  // the row itself first, then the nearest before it
      if (sequence.documents[static_cast<std::size_t>(r)] !=
          sequence.documents[static_cast<std::size_t>(t)])
        break;
      if (sorted_set(mine.chosen.view()[r]) == sorted_set(decision.chosen.view()[r])) continue;
      return Unsettled{decision.name, r,
                       margin(decision.scores.view()[r], decision.chosen.view()[r]),
                       noise.at(decision.name)[static_cast<std::size_t>(r)]};
    }
  }
  return std::nullopt;
}

std::string exponent(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0e", x);
  return text;
}

}  // namespace

Noise measure_noise(const Model& model, const Sequence& sequence, const Run& base,
                    const RunOptions& base_options,
                    const std::function<bool(const std::string&)>& known,
                    const NoiseOptions& options, Index share) {
  const double alpha = options.alpha / 3 / static_cast<double>(share);  // KL, logits, tensors
  const int M = options.runs;
  int done = 0;
  const auto step = [&] {
    if (options.progress) options.progress(++done, 2 * M);
  };
  const auto ops = [&](int m) {
    return reference::ops_of(
        options.precision,
        {Rounding::Mode::random, random_bits(options.seed, static_cast<std::uint64_t>(m))},
        model.config);
  };

  Sums sums;
  RunOptions held = base_options;
  held.decide = [&](const std::string& name, View<const double, 2>, View<Index, 2> chosen) {
    copy_to(chosen, base.find(name)->chosen);
  };
  in_batches(
      M, options.parallel, [&](int m) { return run_reference(model, sequence, ops(m), held); },
      [&](int, const Run& run) { add(sums, run, base), step(); });

  Noise noise;
  noise.reach.resize(static_cast<std::size_t>(sequence.size()));
  Index elements = 1;
  for (const auto& [name, squares] : sums.tensors) elements += squares.size();
  for (const auto& [name, squares] : sums.scores) elements += squares.size();
  const auto tail = [&](Index n) { return alpha / 2 / static_cast<double>(std::max<Index>(n, 1)); };
  for (const auto& [name, squares] : sums.tensors)
    noise.allowed[name] = allowed_of(squares, M, tail(elements));
  for (const auto& [name, squares] : sums.scores)
    noise.score_allowed[name] = allowed_of(squares, M, tail(elements));
  if (base.logits.size() == 0) return noise;

  noise.logits_allowed = allowed_of(sums.logits, M, tail(sums.logits.size()));
  noise.kl_limit = kl_limits(sums, base, alpha);
  for (const auto& run : sums.kl)
    noise.mean_kl += std::accumulate(run.begin(), run.end(), 0.0) /
                     static_cast<double>(run.size() * sums.kl.size());

  Index rows = 0;
  for (const auto& [name, margins] : sums.margins) rows += static_cast<Index>(margins.size());
  const double quantile = student_quantile(M, tail(rows));
  Amplitudes amplitude, reach_of_noise;  // 0 where a decision is settled
  for (const Decision& decision : base.decisions) {
    std::vector<double>& moved = amplitude[decision.name];
    for (Index t = 0; t < decision.scores.shape()[0]; ++t) {
      const double gap = margin(decision.scores.view()[t], decision.chosen.view()[t]);
      const double limit =
          quantile * std::sqrt(sums.margins[decision.name][static_cast<std::size_t>(t)] / M);
      const bool unsettled = std::isfinite(gap) && gap <= limit && !known(decision.name);
      if (unsettled) noise.unsettled.push_back({decision.name, t, gap, limit});
      moved.push_back(unsettled ? limit : -1);
      reach_of_noise[decision.name].push_back(limit);
    }
  }

  RunOptions loose;
  loose.span = base_options.span;
  const auto one_free = [&](int m) {
    RunOptions mine = loose;
    mine.decide = [&, m](const std::string& name, View<const double, 2> scores,
                         View<Index, 2> chosen) {
      if (known(name)) return copy_to(chosen, base.find(name)->chosen);
      const std::vector<double>& moved = amplitude.at(name);
      std::uint64_t seed = random_bits(options.seed + 0x1075, static_cast<std::uint64_t>(m));
      for (char c : name) seed = random_bits(seed, static_cast<unsigned char>(c));
      for (Index t = 0; t < scores.shape[0]; ++t)
        if (moved[static_cast<std::size_t>(t)] >= 0)
          cast_lots(random_bits(seed, static_cast<std::uint64_t>(t)), scores[t],
                    moved[static_cast<std::size_t>(t)], chosen[t]);
    };
    return run_reference(model, sequence, ops(M + m), mine);
  };
  in_batches(M, options.parallel, one_free, [&](int, const Run& run) {
    step();
    for (Index t = 0; t < sequence.size(); ++t) {
      Reach& reach = noise.reach[static_cast<std::size_t>(t)];
      if (reach.undecided || sequence.documents[static_cast<std::size_t>(t)] < 0) continue;
      const double kl = kl_divergence(base.logits.view()[t], run.logits.view()[t]);
      if (kl <= noise.kl_limit[static_cast<std::size_t>(t)]) continue;
      if (const auto turned = first_turned(run, base, sequence, reach_of_noise, t))
        reach = {true, *turned};
    }
  });
  return noise;
}

std::string origin_of_kl_limit(const NoiseOptions& options, Index rows) {
  return std::to_string(options.runs) + " perturbed runs (" +
         std::string(name_of(options.precision)) + "), Fisher F at " + exponent(options.alpha / 3) +
         " over " + std::to_string(rows) + " rows";
}

std::string origin_of_element_limit(const NoiseOptions& options) {
  return std::to_string(options.runs) + " perturbed runs (" +
         std::string(name_of(options.precision)) + "), Student t at " +
         exponent(options.alpha / 3) + " over all elements";
}

}  // namespace dsa::verify
