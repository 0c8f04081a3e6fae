// verify/limits/noise.hpp — how far a correct run may lie from the definition, measured.
//
// The reference is run again and again with the roundings of a precision, drawn at random
// (reference/precision/precision.hpp). Two kinds of run:
//
//   held   every decision (selection, routing) is the definition's: what remains is smooth, and
//          its spread gives the limits;
//   free   decisions are not held, and near-ties (margins within the noise; exact ties are the
//          extreme case) are broken at random. If a free run takes a row beyond its limit, the row
//          does not show that a side beyond it is wrong. A side within the limit is right in any
//          case.
//
// Limits at significance alpha over all checks of a judgement:
//   KL of a row   ~ a weighted chi-square, mean_t over the held runs, squared coefficient of
//                 variation v of the row at 95 % of all; a new draw over that mean is Fisher's F
//                 with (2/v, 2 M/v) degrees of freedom, so limit_t = mean_t F(1 - alpha/rows)
//   an element    Student's t with M degrees of freedom times its own spread over the M held
//                 runs, or with M x width times its row's spread, whichever is larger
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "verify/runs/reference_run.hpp"
#include "verify/runs/variant.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

struct NoiseOptions : Draws {
  std::string precision;  // for reports: "hf-fp32"
  Index share = 1;        // over how many sequences alpha is split
  bool parallel = true;   // runs side by side; false: one after the other, each on all cores
  std::function<void(int done, int of)> progress;
};

/// The implementation whose noise is measured, with the roundings of one draw.
using Perturbed = std::function<Variant(std::uint64_t draw)>;

/// Decisions that are not free: the trace of the judged side determines them.
using IsFixed = std::function<bool(const std::string& name)>;

/// A decision that rounding may flip.
struct NearTie {
  std::string name;
  Index position = -1;
  double margin = 0, noise = 0;
};

/// What the limits of a tensor's elements are made of: the larger of
/// pooled x row[t] x column[c] and own x the element's own spread.
struct ElementOrigin {
  double tail = 0;                        // of one element
  double pooled = 0, pooled_freedom = 0;  // Student's t
  double own = 0, own_freedom = 0;        // 0: too few runs to know an element's own spread
  std::vector<double> row;                // (T)  standard deviation
  std::vector<double> column;             // (W)  how much it stands out, at least 1
};

/// What the limit of a row's KL is made of: mean[t] x factor, plus the rounding of the KL itself.
struct KlOrigin {
  double tail = 0;                                    // of one row
  double factor = 0, numerator = 0, denominator = 0;  // Fisher's F and its degrees of freedom
  std::vector<double> mean;                           // (T)  over the held runs
};

/// From held runs.
struct Limits {
  std::vector<double> kl;                                    // (T)
  Tensor<double, 2> logits;                                  // allowed error, (T, V)
  std::map<std::string, Tensor<double, 2>> tensors;          // by trace name, (T, width)
  std::map<std::string, Tensor<double, 2>> scores;           // by decision name, (T, S)
  std::map<std::string, std::vector<double>> margin_spread;  // standard deviation, a row
  double kl_variation = 2;     // squared coefficient of variation of a row's KL
  double margin_quantile = 0;  // a margin below quantile x spread is within the noise
  std::vector<NearTie> near_ties;
  KlOrigin kl_origin;
  ElementOrigin logits_origin;
  std::map<std::string, ElementOrigin> tensor_origins;

  double margin_noise(const std::string& name, Index t) const {
    return margin_quantile * margin_spread.at(name)[static_cast<std::size_t>(t)];
  }
};

/// `base`: the definition's run whose decisions are held; `options`: its span and traced tensors.
Limits measure_limits(const Perturbed&, const Sequence&, const Run& base, const RunOptions& options,
                      const IsFixed&, const NoiseOptions&);

/// How far decisions that were flipped in some free run may take a row of logits.
struct Reach {
  double kl = 0;  // the most, at alpha; infinite where a free run took the row beyond its held
                  // limit, 0 where no free run flipped a decision that the row depends on
  NearTie first;  // the first such decision, in execution order
};

struct FreeRuns {
  std::vector<Reach> reach;             // (T)
  std::vector<std::vector<double>> kl;  // [run][row]
};

/// Without near-ties nothing is run, and nothing is within reach.
FreeRuns measure_reach(const Perturbed&, const Sequence&, const Run& base,
                       const RunOptions& options, const IsFixed&, const Limits&,
                       const NoiseOptions&);

/// The most that the mean KL of some rows may be, by M free runs' means of the same rows: Student's
/// t on their logarithms. Rows that cannot be judged one by one are judged together by it.
double limit_of_means(const std::vector<double>& means, double tail);

/// In words, for reports: "16 perturbed runs (hf-fp32), Fisher F at 3e-04 over 300 rows".
std::string origin_of_kl_limit(const NoiseOptions&, Index rows);
std::string origin_of_element_limit(const NoiseOptions&);

}  // namespace dsa::verify
