// verify/noise.hpp — how far a correct run may lie from the definition, measured.
//
// The reference is run again and again with the roundings of a precision, drawn at random
// (reference/precision.hpp). Two kinds of run:
//
//   held   every decision (selection, routing) is the definition's: what remains is smooth, and
//          its spread gives the limits;
//   free   decisions fall as they may, and those whose margin lies within the noise fall either
//          way with equal chance (exact ties are the extreme case): where a row's KL leaves the
//          smooth limit in some free run, a side that leaves it too is neither right nor wrong by
//          that row. A side that stays within it is right either way.
//
// Limits at significance alpha over all checks of a judgement:
//   KL of a row   ~ a weighted chi-square, mean_t over the held runs, squared coefficient of
//                 variation v pooled over rows; a new draw over that mean is Fisher's F with
//                 (2/v, 2 M/v) degrees of freedom, so limit_t = mean_t F(1 - alpha/rows)
//   an element    Student's t with M degrees of freedom times its own spread over the M held
//                 runs, or with M x width times its row's spread, whichever is larger
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "verify/run.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

struct NoiseOptions {
  reference::Precision precision = reference::Precision::fp64;
  int runs = 16;  // M, of each kind
  std::uint64_t seed = 1;
  double alpha = 1e-3;   // probability of rejecting a right result
  bool parallel = true;  // runs side by side; false: one after the other, each on all cores
  std::function<void(int done, int of)> progress;
};

/// A decision that rounding may turn.
struct Unsettled {
  std::string name;
  Index position = -1;
  double margin = 0, noise = 0;
};

/// Why a row of logits cannot be decided.
struct Reach {
  bool undecided = false;
  Unsettled first;  // the first decision, in execution order, that fell otherwise in such a run
};

struct Noise {
  std::vector<double> kl_limit;                            // (T)
  Tensor<double, 2> logits_allowed;                        // (T, V)
  std::map<std::string, Tensor<double, 2>> allowed;        // by trace name, (T, width)
  std::map<std::string, Tensor<double, 2>> score_allowed;  // by decision name, (T, S)
  std::vector<Unsettled> unsettled;
  std::vector<Reach> reach;  // (T)
  double mean_kl = 0;        // over rows and held runs
};

/// `model` as loaded at the precision; `base`: the definition's run whose decisions are held;
/// `known`: decisions that are not free (the other side's trace told them), by name.
/// `share`: how many sequences alpha is split over.
Noise measure_noise(const Model&, const Sequence&, const Run& base, const RunOptions& base_options,
                    const std::function<bool(const std::string&)>& known, const NoiseOptions&,
                    Index share);

/// In words, for reports: "16 + 16 perturbed runs, hf-fp32, Fisher F at 1e-3 / 300 rows".
std::string origin_of_kl_limit(const NoiseOptions&, Index rows);
std::string origin_of_element_limit(const NoiseOptions&);

}  // namespace dsa::verify
